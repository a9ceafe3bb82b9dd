// The problem of layer_norm_qkv: its exact values and bounds, the check of ours and wrong answers.
#pragma once

#include <array>
#include <string>
#include <string_view>
#include <vector>

#include "verify/bounds/layer_norm_qkv.hpp"
#include "verify/op.hpp"
#include "verify/ops/norm/case.hpp"
#include "verify/ops/sample.hpp"

namespace attest {

inline constexpr std::array<std::string_view, 3> qkv_names = {"q", "k", "v"};

class LayerNormQkvProblem : public Problem {
 public:
  explicit LayerNormQkvProblem(const Case& c);

  std::string contract() const override;
  std::vector<Expected> expect(const ProgressFunction& progress) override;
  void recheck(std::span<const Expected> expected) const override;
  std::vector<Decoy> decoys(std::span<const Expected> expected) const override;
  std::vector<Decoy> alternatives(std::span<const Expected> expected) const override;
  std::vector<DiagnosisEntry> explanations(std::span<const Expected> expected) const override;

 private:
  void read_spec();
  void read_contract();
  void read_shapes();

  /// Where column `o` of token `i` stands in output o / M.
  Index place(Index i, Index o) const { return place(i, o, heads_outside_); }
  Index place(Index i, Index o, bool heads_outside) const {
    const Index h = o % width_ / head_width_, d = o % head_width_, b = i / tokens_, s = i % tokens_;
    return (heads_outside ? (b * heads_ + h) * tokens_ + s : (b * tokens_ + s) * heads_ + h) * head_width_ +
           d;
  }
  const double* data(const std::string& name) const {
    const auto it = case_.in.find(name);
    return it == case_.in.end() ? nullptr : it->second.values.data();
  }
  std::vector<Index> sampled_tokens() const { return evenly_spread(batch_ * tokens_, 32); }
  /// What ref says of a sample of tokens; order(o) is the row of qkv_weight that column o is made of.
  std::vector<Decoy> sampled_answers(const std::string& name, const NormSpec& spec,
                                     const LayerNormQkvInputs& in,
                                     double (*rstd)(double v, double eps, double n),
                                     Index (*order)(Index o, Index heads, Index head_width)) const;

  /// Products with `rows`, the normalised tokens, that a kernel adds up in 16 bits.
  std::vector<Decoy> narrow_products(const std::vector<Index>& tokens,
                                     const std::vector<std::vector<double>>& rows) const;

  const Case& case_;
  NormSpec spec_{};
  LayerNormQkvInputs in_;
  bounds::LayerNormQkvContract contract_{};
  Index batch_ = 0, tokens_ = 0, width_ = 0, heads_ = 0, head_width_ = 0;
  bool heads_outside_ = true;  // bhsd
};

}  // namespace attest
