// dk and dv of some keys of an attention case, from blocks of rows. docs/rows.md.
#include "verify/ops/attention/keys.hpp"

#include <algorithm>
#include <cmath>
#include <functional>
#include <limits>
#include <numbers>

#include "ref/attention.hpp"
#include "verify/bounds/attention_backward.hpp"
#include "verify/contract/keys.hpp"
#include "verify/ops/attention/case.hpp"
#include "verify/recheck.hpp"

namespace attest {
namespace {

constexpr double infinity = std::numeric_limits<double>::infinity();
constexpr double zero = 0, unknown = std::numeric_limits<double>::quiet_NaN();
constexpr Index answered_keys = 8;  // of a case, in all of its parts: those of ref and of wrong answers

/// The same everywhere.
template <int Rank>
View<const double, Rank> constant(const double& value, typename View<const double, Rank>::Extents extents) {
  return {&value, extents, {}};
}

/// What the gradients of a block of rows are judged from: the o and lse that the device wrote, which may have
/// been read before they were stored.
class DumpedSaved {
 public:
  DumpedSaved(const Case& block, const AttentionCase& attention, const Sequence& s)
      : d_o_(attention.like_o(block.in.at("do").values.data(), s)),
        o_(constant<3>(zero, extents_of(s))),
        o_worst_(extents_of(s)),
        o_sigma_(extents_of(s)),
        lse_({s.in.q_heads(), s.queries}),
        lse_worst_(lse_),
        lse_by_mistake_(lse_) {
    const Tensor& lse = block.out.at("lse");
    const View<const double, 3> lse_at = attention.like_rows(lse.values.data(), lse, s);
    const Tensor* o = block.output("o");
    if (o) o_ = attention.like_o(o->values.data(), s);
    for (Index h = 0; h < s.in.q_heads(); ++h) {
      for (Index i = 0; i < s.queries; ++i) {
        const double read = lse_at(h, i, 0);
        const bool is_empty = read == attention.lse_empty;
        lse_(h, i) = is_empty ? -infinity : read / attention.lse_unit;
        lse_worst_(h, i) = is_empty ? 0 : ulp(read, *lse.dtype) / 2 / attention.lse_unit;
        lse_by_mistake_(h, i) = lse_(h, i) * std::numbers::log2e;
        for (Index e = 0; o && e < s.in.v_width(); ++e) {
          const double spacing = ulp(o_(h, i, e), *o->dtype);
          o_worst_(h, i, e) = spacing / 2;
          o_sigma_(h, i, e) = spacing / std::sqrt(12.0);
        }
      }
    }
  }

  bounds::BackwardInputs for_bounds() const {
    const View<const double, 2> rows = lse_.view();
    return {d_o_,
            o_,
            o_worst_.view(),
            constant<3>(zero, {o_.extent(0), o_.extent(1), o_.extent(2)}),
            o_sigma_.view(),
            rows,
            lse_worst_.view(),
            lse_worst_.view(),
            constant<2>(unknown, {rows.extent(0), rows.extent(1)})};
  }
  ref::AttentionSaved for_ref() const { return {o_, lse_.view(), d_o_}; }
  View<const double, 2> lse_by_mistake() const { return lse_by_mistake_.view(); }

 private:
  static Array<double, 3>::Extents extents_of(const Sequence& s) {
    return {s.in.q_heads(), s.queries, s.in.v_width()};
  }

  View<const double, 3> d_o_, o_;  // [1, rows, E]
  Array<double, 3> o_worst_, o_sigma_;
  Array<double, 2> lse_, lse_worst_;  // [1, rows]
  Array<double, 2> lse_by_mistake_;   // in base 2, read as natural
};

/// An answer for some keys, right or wrong, added up block after block.
struct Answer {
  enum class Kind { right, decoy, likely } kind;
  std::string name;
  AttentionSpec spec;
  std::function<void(AttentionInputs&, ref::AttentionSaved&, const DumpedSaved&)> misread = {};
  bool of_last_head = false;
  std::vector<double> dk = {}, dv = {};  // [keys, D or E]
};

std::vector<Answer> answers_of(const AttentionSpec& given, Index group) {
  using enum Answer::Kind;
  std::vector<Answer> all = {{right, "ref", given}};
  const auto with_spec = [&](Answer::Kind kind, const std::string& name, const auto& change) {
    change(all.emplace_back(Answer{kind, name, given}).spec);
  };
  for (const auto& [name, causal] :
       {std::pair{"causal = none", Causal::none}, std::pair{"causal = top_left", Causal::top_left},
        std::pair{"causal = bottom_right", Causal::bottom_right}}) {
    if (causal != given.causal) with_spec(decoy, name, [c = causal](AttentionSpec& s) { s.causal = c; });
  }
  with_spec(decoy, "a scale 1 % off", [](AttentionSpec& s) { s.scale *= 1.01; });
  if (given.softcap > 0) with_spec(likely, "softcap ignored", [](AttentionSpec& s) { s.softcap = 0; });
  if (given.window_left >= 0)
    with_spec(likely, "window_left ignored", [](AttentionSpec& s) { s.window_left = -1; });
  if (given.window_right >= 0)
    with_spec(likely, "window_right ignored", [](AttentionSpec& s) { s.window_right = -1; });
  for (const Index shift : {1, -1}) {
    if (given.causal == Causal::none) break;
    Answer& answer = all.emplace_back(Answer{likely,
                                             shift > 0 ? "backward: a causal diagonal one key too far"
                                                       : "backward: a causal diagonal one key short",
                                             given});
    answer.spec.causal = Causal::top_left;
    answer.misread = [given, shift](AttentionInputs& in, ref::AttentionSaved&, const DumpedSaved&) {
      in.past = diagonal(given, in, 0) - in.row(0) + shift;
    };
  }
  all.push_back({likely, "backward: delta = rowsum(do o) missing in dS", given,
                 [](AttentionInputs&, ref::AttentionSaved& saved, const DumpedSaved&) {
                   saved.o = constant<3>(zero, {saved.o.extent(0), saved.o.extent(1), saved.o.extent(2)});
                 }});
  all.push_back({likely, "backward: lse of base 2 read as natural", given,
                 [](AttentionInputs&, ref::AttentionSaved& saved, const DumpedSaved& dumped) {
                   saved.lse = dumped.lse_by_mistake();
                 }});
  if (group > 1) {
    all.push_back({likely, "only the last query head of a group reaches dk and dv", given});
    all.back().of_last_head = true;
  }
  return all;
}

class AttentionKeys : public KeyProblem {
 public:
  explicit AttentionKeys(const Case& c)
      : case_(c),
        attention_(c),
        sequence_(attention_.sequences.front()),
        contract_keys_(c),
        contract_(read_contract(contract_keys_, *c.in.at("q").dtype)),
        answers_(answers_of(attention_.spec, c.heads)) {
    for (const char* name : {"dk", "dv"}) {
      if (const Tensor* tensor = c.output(name)) expected_.emplace_back(name, *tensor);
    }
    bounds::ExpectedView<3> dk, dv;
    for (Expected& e : expected_) {
      if (e.output == "dk") dk = {e, attention_.like_k(e.value.data(), sequence_)};
      if (e.output == "dv") dv = {e, attention_.like_v(e.value.data(), sequence_)};
    }
    gradients_.emplace(attention_.spec, contract_, c.heads, dk, dv);

    const Index keys = sequence_.keys;
    const Index answered = std::min(keys, std::max(Index{1}, answered_keys / c.parts));
    for (Index n = 0; n < answered; ++n) answered_.push_back((2 * n + 1) * keys / (2 * answered));
    for (Answer& answer : answers_) {
      answer.dk.resize(answered * sequence_.in.qk_width());
      answer.dv.resize(answered * sequence_.in.v_width());
    }
  }

  std::vector<Index> unusable_rows(const Case& block) const override {
    const AttentionCase attention(block);
    const Sequence& s = attention.sequences.front();
    const Tensor &lse = block.out.at("lse"), *o = block.output("o");
    std::vector<double> scores(s.in.keys());
    std::vector<Index> rows;
    for (Index i = 0; i < s.queries; ++i) {
      const double x = attention.like_rows(lse.values.data(), lse, s)(0, i, 0);
      bool is_usable = std::isfinite(x);
      if (x == attention.lse_empty) {  // and so the row must not attend to any key
        ref::attention_scores(attention.spec, s.in, 0, i, {scores.data(), {s.in.keys()}});
        is_usable = std::ranges::all_of(scores, [](double score) { return score == -infinity; });
      } else if (o) {
        const View<const double, 1> row = attention.like_o(o->values.data(), s).slice(0).slice(i);
        for (Index e = 0; e < row.extent(0); ++e) is_usable &= std::isfinite(row(e));
      }
      if (!is_usable) rows.push_back(i);
    }
    return rows;
  }

  void add(const Case& block) override {
    AttentionCase attention(block);
    attention.scale_operands(contract_);
    const Sequence& s = attention.sequences.front();
    const DumpedSaved saved(block, attention, s);
    bounds::attention_backward_rows(attention.spec, s.in_backward, saved.for_bounds(), contract_,
                                    *gradients_);

    const Index keys = std::ssize(answered_);
#pragma omp parallel for collapse(2) schedule(dynamic, 1)
    for (Index a = 0; a < std::ssize(answers_); ++a) {
      for (Index n = 0; n < keys; ++n) add_answer(answers_[a], n, s.in_backward, saved);
    }
    is_new_head_ = false;
  }

  void finish_head() override {
    gradients_->finish_head();
    is_new_head_ = true;
  }

  std::vector<Expected> expect() override {
    gradients_->finish(0);
    return std::move(expected_);
  }

  void recheck(std::span<const Expected> expected) const override {
    std::vector<Decoy> right;
    take(answers_.front(), right);
    hold_against_ref(expected, right);
  }

  std::vector<Decoy> wrong_answers(bool likely) const override {
    std::vector<Decoy> all;
    for (const Answer& answer : answers_) {
      if (answer.kind == (likely ? Answer::Kind::likely : Answer::Kind::decoy)) take(answer, all);
    }
    const double scale = attention_.spec.scale;
    for (const bool twice : {false, true}) {
      if (!likely || scale == 0) break;
      Answer scaled = answers_.front();
      scaled.name = twice ? "dq or dk multiplied by the scale twice" : "dq or dk without the scale";
      for (double& x : scaled.dk) x *= twice ? scale : 1 / scale;
      take(scaled, all);
      std::erase_if(all, [&](const Decoy& x) { return x.name == scaled.name && x.output == "dv"; });
    }
    return all;
  }

 private:
  void add_answer(Answer& answer, Index n, const AttentionInputs& in, const DumpedSaved& dumped) const {
    AttentionInputs seen = in;
    ref::AttentionSaved saved = dumped.for_ref();
    if (answer.misread) answer.misread(seen, saved, dumped);
    std::vector<double> dk(in.qk_width()), dv(in.v_width());
    const auto whole = [](std::vector<double>& x) -> View<double, 1> { return {x.data(), {std::ssize(x)}}; };
    ref::attention_backward_key(answer.spec, seen, saved, 0, answered_[n], whole(dk), whole(dv));
    const bool starts_anew = answer.of_last_head && is_new_head_;
    const auto add_to = [&](std::vector<double>& sums, const std::vector<double>& x) {
      for (Index d = 0; d < std::ssize(x); ++d) {
        double& sum = sums[n * std::ssize(x) + d];
        sum = starts_anew ? x[d] : sum + x[d];
      }
    };
    add_to(answer.dk, dk);
    add_to(answer.dv, dv);
  }

  void take(const Answer& answer, std::vector<Decoy>& all) const {
    for (const char* name : {"dk", "dv"}) {
      const Tensor* tensor = case_.output(name);
      if (!tensor) continue;
      const bool is_dk = tensor == case_.output("dk");
      const double* data = tensor->values.data();
      const View<const double, 3> place =
          is_dk ? attention_.like_k(data, sequence_) : attention_.like_v(data, sequence_);
      const std::vector<double>& values = is_dk ? answer.dk : answer.dv;
      Decoy& decoy = all.emplace_back(Decoy{answer.name, name, {}, values});
      for (const Index j : answered_) {
        for (Index d = 0; d < place.extent(2); ++d) decoy.at.push_back(&place(0, j, d) - data);
      }
    }
  }

  const Case& case_;
  const AttentionCase attention_;
  const Sequence& sequence_;
  ContractReader contract_keys_;
  const Contract contract_;
  std::vector<Expected> expected_;
  std::optional<bounds::KeyGradients> gradients_;
  std::vector<Index> answered_;  // keys, by index
  std::vector<Answer> answers_;  // ref's is the first
  bool is_new_head_ = true;
};

}  // namespace

std::unique_ptr<KeyProblem> attention_keys(const Case& c) {
  return std::make_unique<AttentionKeys>(c);
}

}  // namespace attest
