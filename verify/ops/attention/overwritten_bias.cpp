// A gradient of a broadcast bias of which each share overwrites the one before.
#include "verify/ops/attention/overwritten_bias.hpp"

#include <algorithm>
#include <string>

#include "ref/attention.hpp"

namespace attest {
namespace {

/// Rows, and keys of each, beyond which it would take too long.
constexpr double most_scores = 1 << 24;

}  // namespace

std::vector<Decoy> overwritten_dbias(const AttentionCase& attention, std::span<const SavedForBackward> saved,
                                     std::span<const Expected> expected) {
  const auto dbias = std::ranges::find(expected, "dbias", &Expected::output);
  if (dbias == expected.end() || saved.empty()) return {};
  double scores = 0;
  for (const Sequence& s : attention.sequences)
    scores += static_cast<double>(s.in.q_heads() * s.queries * s.in.keys());
  if (scores > most_scores) return {};

  struct Last {
    const char* name;
    bool of_rows, of_heads, of_sequences;
  };
  std::vector<Decoy> all;
  for (const Last& last : {Last{"query row", true, false, false}, Last{"head", false, true, false},
                           Last{"batch entry", false, false, true},
                           Last{"row of the last head and batch entry", true, true, true}}) {
    Decoy answer{"dbias of the last " + std::string(last.name) + " only", "dbias", {}, {}, true};
    answer.value.resize(dbias->value.size());
    const std::size_t sequences = attention.sequences.size();
    for (std::size_t n = last.of_sequences ? sequences - 1 : 0; n < sequences; ++n) {
      const AttentionInputs& in = attention.sequences[n].in_backward;
      const View<double, 3> to = attention.like_bias(answer.value.data(), attention.sequences[n]);
      const Index heads = in.q_heads(), rows = in.queries();
      for (Index h = last.of_heads && to.stride(0) == 0 ? heads - 1 : 0; h < heads; ++h) {
        for (Index i = last.of_rows && to.stride(1) == 0 ? rows - 1 : 0; i < rows; ++i) {
          std::vector<double> ds(in.keys());
          ref::attention_backward_query(attention.spec, in, saved[n].for_ref(), h, i, {},
                                        {ds.data(), {in.keys()}});
          for (Index j = 0; j < in.keys(); ++j) to(h, i, j) += ds[j];
        }
      }
    }
    for (Index at = 0; at < static_cast<Index>(answer.value.size()); ++at) answer.at.push_back(at);
    all.push_back(std::move(answer));
  }
  return all;
}

}  // namespace attest
