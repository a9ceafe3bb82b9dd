// Attention held against ref on a sample of rows and keys, and the wrong answers that must not pass.
#include <cmath>
#include <limits>

#include "verify/ops/attention/problem.hpp"
#include "verify/recheck.hpp"

namespace attest {
namespace {

constexpr Index sampled_rows = 32;  // of a case, in all of its parts, and as many keys

/// Places of a case: sequence n, head h, row or key i.
struct Place {
  std::size_t n;
  Index h, i;
};

/// At most sampled_rows of all places, evenly spread, the first and the last among them; of one, the last,
/// which sees the most.
template <class HeadsOf, class CountOf>
std::vector<Place> sample(const std::vector<Sequence>& sequences, Index parts, HeadsOf heads_of,
                          CountOf count_of) {
  Index total = 0;
  for (const Sequence& s : sequences) total += heads_of(s) * count_of(s);
  const Index wanted = std::min(total, std::max(Index{1}, sampled_rows / parts));
  std::vector<Place> places;
  Index passed = 0;  // places before this sequence
  for (std::size_t n = 0; n < sequences.size(); ++n) {
    const Index count = count_of(sequences[n]), here = heads_of(sequences[n]) * count;
    while (static_cast<Index>(places.size()) < wanted) {
      const Index taken = static_cast<Index>(places.size());
      const Index at = wanted == 1 ? total - 1 - passed : taken * (total - 1) / (wanted - 1) - passed;
      if (at >= here) break;
      places.push_back({n, at / count, at % count});
    }
    passed += here;
  }
  return places;
}

std::vector<Place> sample_rows(const std::vector<Sequence>& sequences, Index parts) {
  return sample(
      sequences, parts, [](const Sequence& s) { return s.in.q_heads(); },
      [](const Sequence& s) { return s.queries; });
}

std::vector<Place> sample_keys(const std::vector<Sequence>& sequences, Index parts) {
  return sample(
      sequences, parts, [](const Sequence& s) { return s.in.kv_heads(); },
      [](const Sequence& s) { return s.keys; });
}

}  // namespace

/// Answers for the outputs that a case holds, by flat index.
class AttentionProblem::Answers {
 public:
  Answers(std::string name, const Case& c) : name_(std::move(name)), case_(c) {}

  /// values of row i of head h, where `place` views the dumped tensor of that output.
  template <class PlaceOf>
  void add_row(const std::string& output, PlaceOf place_of, Index h, Index i, View<const double, 1> values) {
    const auto it = case_.out.find(output);
    if (it == case_.out.end()) return;
    const double* base = it->second.values.data();
    const View<const double, 3> place = place_of(base, it->second);
    Decoy& answer = of(output);
    for (Index d = 0; d < values.extent(0); ++d) {
      answer.at.push_back(&place(h, i, d) - base);
      answer.value.push_back(values(d));
    }
  }
  void add_row(const std::string& output, auto place_of, Index h, Index i,
               const std::vector<double>& values) {
    add_row(output, place_of, h, i,
            View<const double, 1>{values.data(), {static_cast<Index>(values.size())}});
  }

  std::vector<Decoy> take() { return std::move(answers_); }

 private:
  Decoy& of(const std::string& output) {
    for (Decoy& answer : answers_) {
      if (answer.output == output) return answer;
    }
    return answers_.emplace_back(Decoy{name_, output, {}, {}});
  }

  std::string name_;
  const Case& case_;
  std::vector<Decoy> answers_;
};

namespace {

View<double, 1> whole(std::vector<double>& x) {
  return {x.data(), {static_cast<Index>(x.size())}};
}

}  // namespace

std::vector<Decoy> AttentionProblem::sampled_answers(const std::string& name, const AttentionSpec& spec,
                                                     const Misreading& misread) const {
  Answers answers(name, case_);
  const auto scores_place = [this](const Sequence& s) {
    return [&](const double* data, const Tensor&) { return attention_.like_scores(data, s); };
  };
  const auto rows_place = [this](const Sequence& s) {
    return [&](const double* data, const Tensor& tensor) { return attention_.like_rows(data, tensor, s); };
  };
  for (const Place& at : sample_rows(attention_.sequences, case_.parts)) {
    Sequence s = attention_.sequences[at.n];
    if (misread) misread(s.in);
    std::vector<double> scores(s.in.keys()), p(s.in.keys()), o(s.in.v_width());
    const ref::SoftmaxStats stats =
        ref::attention_forward_row(spec, s.in, at.h, at.i, whole(scores), whole(p), whole(o));
    const bool is_empty = stats.lse == -std::numeric_limits<double>::infinity();
    answers.add_row(
        "o", [&](const double* data, const Tensor&) { return attention_.like_o(data, s); }, at.h, at.i, o);
    answers.add_row("lse", rows_place(s), at.h, at.i,
                    std::vector{is_empty ? attention_.lse_empty : stats.lse * attention_.lse_unit});
    answers.add_row("m", rows_place(s), at.h, at.i, std::vector{stats.m});
    answers.add_row("l", rows_place(s), at.h, at.i, std::vector{stats.l});
    answers.add_row("s", scores_place(s), at.h, at.i, scores);
    answers.add_row("p", scores_place(s), at.h, at.i, p);
  }
  add_gradients(answers, spec, [&](AttentionInputs& in, ref::AttentionSaved&) {
    if (misread) misread(in);
  });
  if (case_.output("dsink")) {
    std::vector<double> dsink(case_.out.at("dsink").size());
    for (std::size_t n = 0; n < saved_.size(); ++n) {
      const AttentionInputs& in = attention_.sequences[n].in;
      for (Index h = 0; h < in.q_heads(); ++h)
        dsink[h] += ref::attention_backward_sink(in, saved_[n].for_ref(), h);
    }
    answers.add_row(
        "dsink",
        [](const double* data, const Tensor& tensor) {
          return View<const double, 3>{data, {1, 1, tensor.size()}};
        },
        0, 0, dsink);
  }
  return answers.take();
}

void AttentionProblem::add_gradients(Answers& answers, const AttentionSpec& spec,
                                     const GradientMisreading& misread) const {
  for (const Place& at : sample_rows(attention_.sequences, case_.parts)) {
    if (!case_.output("dq")) break;
    Sequence s = attention_.sequences[at.n];
    ref::AttentionSaved saved = saved_[at.n].for_ref();
    AttentionInputs& in = s.in_backward;
    misread(in, saved);
    if (in.q_heads() != attention_.sequences[at.n].in.q_heads()) break;
    if (in.queries() != attention_.sequences[at.n].in.queries()) break;
    std::vector<double> dq(in.qk_width());
    ref::attention_backward_query(spec, in, saved, at.h, at.i, whole(dq), {});
    answers.add_row(
        "dq", [&](const double* data, const Tensor&) { return attention_.like_q(data, s); }, at.h, at.i, dq);
  }
  if (!case_.output("dk") && !case_.output("dv")) return;
  for (const Place& at : sample_keys(attention_.sequences, case_.parts)) {
    Sequence s = attention_.sequences[at.n];
    ref::AttentionSaved saved = saved_[at.n].for_ref();
    AttentionInputs& in = s.in_backward;
    misread(in, saved);
    if (in.keys() != attention_.sequences[at.n].in.keys()) break;
    if (in.kv_heads() != attention_.sequences[at.n].in.kv_heads()) break;
    std::vector<double> dk(in.qk_width()), dv(in.v_width());
    const Index past = attention_.sequences[at.n].in.past;  // a misreading may put the diagonal elsewhere
    ref::attention_backward_key(spec, in, saved, at.h, at.i + past, whole(dk), whole(dv));
    answers.add_row(
        "dk", [&](const double* data, const Tensor&) { return attention_.like_k(data, s); }, at.h, at.i, dk);
    answers.add_row(
        "dv", [&](const double* data, const Tensor&) { return attention_.like_v(data, s); }, at.h, at.i, dv);
  }
}

std::vector<Decoy> AttentionProblem::sampled_gradients(const std::string& name, const AttentionSpec& spec,
                                                       const GradientMisreading& misread) const {
  Answers answers(name, case_);
  add_gradients(answers, spec, misread);
  return answers.take();
}

std::vector<Decoy> AttentionProblem::sampled_lse(const std::string& name,
                                                 const std::function<double(double m, double l)>& lse) const {
  Answers answers(name, case_);
  for (const Place& at : sample_rows(attention_.sequences, case_.parts)) {
    const Sequence& s = attention_.sequences[at.n];
    std::vector<double> scores(s.in.keys()), p(s.in.keys()), o(s.in.v_width());
    const ref::SoftmaxStats stats =
        ref::attention_forward_row(attention_.spec, s.in, at.h, at.i, whole(scores), whole(p), whole(o));
    answers.add_row(
        "lse",
        [&](const double* data, const Tensor& tensor) { return attention_.like_rows(data, tensor, s); }, at.h,
        at.i, std::vector{lse(stats.m, stats.l)});
  }
  return answers.take();
}

std::vector<Decoy> AttentionProblem::sampled_statistics(
    const std::string& name, const std::function<ref::SoftmaxStats(const ref::SoftmaxStats&)>& of) const {
  Answers answers(name, case_);
  for (const Place& at : sample_rows(attention_.sequences, case_.parts)) {
    const Sequence& s = attention_.sequences[at.n];
    std::vector<double> scores(s.in.keys()), p(s.in.keys()), o(s.in.v_width());
    const ref::SoftmaxStats stats =
        of(ref::attention_forward_row(attention_.spec, s.in, at.h, at.i, whole(scores), whole(p), whole(o)));
    const auto place = [&](const double* data, const Tensor& tensor) {
      return attention_.like_rows(data, tensor, s);
    };
    answers.add_row("m", place, at.h, at.i, std::vector{stats.m});
    answers.add_row("l", place, at.h, at.i, std::vector{stats.l});
  }
  return answers.take();
}

std::vector<Decoy> AttentionProblem::sampled_means_of_v() const {
  Answers answers("the mean of V", case_);
  for (const Place& at : sample_rows(attention_.sequences, case_.parts)) {
    const Sequence& s = attention_.sequences[at.n];
    std::vector<double> mean(s.in.v_width());
    for (Index j = 0; j < s.in.keys(); ++j) {
      for (Index e = 0; e < s.in.v_width(); ++e) {
        mean[e] += s.in.v(s.in.kv_head(at.h), j, e) / static_cast<double>(s.in.keys());
      }
    }
    answers.add_row(
        "o", [&](const double* data, const Tensor&) { return attention_.like_o(data, s); }, at.h, at.i, mean);
  }
  return answers.take();
}

void AttentionProblem::recheck(std::span<const Expected> expected) const {
  hold_against_ref(expected, sampled_answers("ref", attention_.spec));
}

std::vector<Decoy> AttentionProblem::decoys(std::span<const Expected>) const {
  std::vector<Decoy> all = sampled_means_of_v();
  const auto add = [&](const std::string& name, const AttentionSpec& wrong) {
    for (Decoy& decoy : sampled_answers(name, wrong)) all.push_back(std::move(decoy));
  };
  for (const auto& [name, causal] :
       {std::pair{"causal = none", Causal::none}, std::pair{"causal = top_left", Causal::top_left},
        std::pair{"causal = bottom_right", Causal::bottom_right}}) {
    AttentionSpec wrong = attention_.spec;
    wrong.causal = causal;
    if (causal != attention_.spec.causal) add(name, wrong);
  }
  AttentionSpec wrong = attention_.spec;
  wrong.scale *= 1.01;
  add("a scale 1 % off", wrong);
  return all;
}

}  // namespace attest
