// One case by rows and keys: its parts are judged a few at a time, and what they give is put together in
// their order.
#include <omp.h>

#include <algorithm>
#include <atomic>
#include <exception>
#include <iterator>
#include <map>
#include <memory>
#include <numeric>

#include "verify/axes/axes.hpp"
#include "verify/axes/region.hpp"
#include "verify/compare.hpp"
#include "verify/diagnosis/diagnose.hpp"
#include "verify/dump/digest.hpp"
#include "verify/statistics/picture_maker.hpp"
#include "verify/statistics/region_statistics.hpp"
#include "verify/verdict/judge.hpp"
#include "verify/verdict/verify_case.hpp"

namespace attest {
namespace {

/// The judged elements of one output, part after part.
class Joined {
 public:
  Joined(std::string name, const Tensor& whole) : name_(std::move(name)), whole_(whole) {
    values_.type_name = whole.type_name;
    values_.dtype = whole.dtype;
  }

  /// What the part's elements are, and where they are in the whole tensor.
  void add(const Expected& part, const Selection& where) {
    const Tensor& dumped = *part.dumped;
    for (Index at = 0; at < dumped.size(); ++at) {
      Index rest = at, flat = 0, step = 1;
      for (std::size_t axis = where.size(); axis-- > 0; rest /= dumped.shape[axis]) {
        flat += step * where[axis][rest % dumped.shape[axis]];
        step *= whole_.shape[axis];
      }
      places_.push_back(flat);
    }
    values_.shape = dumped.shape;
    values_.values.insert(values_.values.end(), dumped.values.begin(), dumped.values.end());
    for (auto vector : vectors)
      (bounds_.*vector).insert((bounds_.*vector).end(), (part.*vector).begin(), (part.*vector).end());
  }

  Index size() const { return std::ssize(places_); }

  /// All of it as one tensor, the parts along a new first axis. Call once, after the last part.
  Expected take() {
    values_.shape.insert(values_.shape.begin(), 1);
    values_.shape.front() = size() / values_.size();
    Expected all(name_, Tensor{values_.type_name, values_.dtype, {0}, {}});
    all.dumped = &values_;
    for (auto vector : vectors) all.*vector = std::move(bounds_.*vector);
    return all;
  }

  /// Findings about the joined elements, told in places of the whole tensor.
  void place(OutputFindings& found, const Expected& all, const std::vector<Axis>& axes) const {
    Index flat = 0;
    for (std::size_t axis = 0; axis < found.at.size(); ++axis)
      flat = flat * found.shape[axis] + found.at[axis];
    found.shape = whole_.shape;
    found.at.resize(found.shape.size());
    Index rest = places_[flat];
    for (std::size_t axis = found.at.size(); axis-- > 0; rest /= found.shape[axis])
      found.at[axis] = rest % found.shape[axis];
    Region region(axes);
    for (Index at = 0; at < size(); ++at)
      if (!within_bound(all, at, values_.values[at])) region.add(places_[at]);
    found.where = found.beyond > 0 ? region.text() : "";
  }

  Picture picture(const Op& op, const std::vector<Axis>& axes, const Expected& all) const {
    PictureMaker maker(op, axes);
    for (Index at = 0; at < size(); ++at) maker.add(all, at, places_[at]);
    return maker.take();
  }

  const std::vector<Index>& places() const { return places_; }

 private:
  static constexpr std::vector<double> Expected::*vectors[] = {&Expected::value,    &Expected::value_error,
                                                               &Expected::rigorous, &Expected::probable,
                                                               &Expected::sigma,    &Expected::systematic};
  std::string name_;
  const Tensor& whole_;
  Tensor values_;
  Expected bounds_{"", Tensor{"", DType::float64, {0}, {}}};
  std::vector<Index> places_;
};

void add_new(std::vector<std::string>& all, const std::vector<std::string>& more) {
  for (const std::string& text : more)
    if (std::ranges::find(all, text) == all.end()) all.push_back(text);
}

/// The keys of a part, from all rows of the query heads that read them.
class JudgedKeys {
 public:
  JudgedKeys(const Op& op, const RowSample& sample, const RowPart& part, const PartReader& read,
             const ProgressFunction& progress)
      : sample_(sample), part_(part), read_(read), first_(block({0, {0}})), problem_(op.read_keys(first_)) {
    const Index blocks = (sample.sequence() + rows_at_a_time - 1) / rows_at_a_time;
    for (Index head = 0; head < sample.group(); ++head) {
      for (Index n = 0; n < blocks; ++n) {
        add({head, rows(n * rows_at_a_time)});
        progress(static_cast<double>(head * blocks + n + 1) / static_cast<double>(sample.group() * blocks));
      }
      problem_->finish_head();
    }
    std::ranges::sort(unusable_);
  }

  KeyProblem& problem() const { return *problem_; }

  /// Rows that could not take part, of whichever head.
  const std::vector<Index>& unusable() const { return unusable_; }

 private:
  static constexpr Index rows_at_a_time = 2048;

  std::vector<Index> rows(Index first) const {
    std::vector<Index> all(std::min(rows_at_a_time, sample_.sequence() - first));
    std::iota(all.begin(), all.end(), first);
    return all;
  }

  Case block(const RowBlock& wanted) const {
    return sample_.finished(
        read_([&](const std::string& path) { return sample_.selection(part_, wanted, path); }), part_,
        wanted);
  }

  void add(RowBlock wanted) {
    const Case all = block(wanted);
    const std::vector<Index> unusable = problem_->unusable_rows(all);
    if (unusable.empty()) return problem_->add(all);
    for (auto at = unusable.rbegin(); at != unusable.rend(); ++at) {
      unusable_.push_back(wanted.rows[*at]);
      wanted.rows.erase(wanted.rows.begin() + *at);
    }
    if (!wanted.rows.empty()) problem_->add(block(wanted));
  }

  const RowSample& sample_;
  const RowPart& part_;
  const PartReader& read_;
  const Case first_;
  const std::unique_ptr<KeyProblem> problem_;
  std::vector<Index> unusable_;
};

/// What is held of a part while it is judged.
struct JudgedPart {
  std::optional<JudgedKeys> keys;
  const RowPart rows;
  const Case some;
  const std::unique_ptr<Problem> problem;
  std::vector<Expected> expected;
  std::size_t by_rows;  // the first of `expected`; the others are by keys
  std::vector<Decoy> wrong;
  Digest inputs;

  JudgedPart(const Op& op, const RowSample& sample, const RowPart& part, const PartReader& read,
             const Wanted& wanted, const ProgressFunction& progress)
      : keys(keys_of(op, sample, part, read, progress)),
        rows(keys ? sample.with_rows(part, keys->unusable()) : part),
        some(sample.finished(read([&](const std::string& path) { return sample.selection(rows, path); }),
                             rows)),
        problem(op.read(some)),
        expected(problem->expect([&](double done) { progress(keys ? (1 + done) / 2 : done); })),
        by_rows(expected.size()),
        inputs(digest_of(some)) {
    if (wanted.diagnosis) problem->recheck(expected);
    wrong = problem->decoys(expected);
    if (!keys) return;
    std::ranges::move(keys->problem().expect(), std::back_inserter(expected));
    if (wanted.diagnosis) keys->problem().recheck(std::span(expected).subspan(by_rows));
    std::ranges::move(keys->problem().wrong_answers(false), std::back_inserter(wrong));
  }

  std::vector<DiagnosisEntry> diagnosis() const {
    const std::span<const Expected> of_rows = std::span(expected).first(by_rows);
    std::vector<Decoy> all = wrong;
    std::ranges::move(problem->alternatives(of_rows), std::back_inserter(all));
    if (keys) std::ranges::move(keys->problem().wrong_answers(true), std::back_inserter(all));
    return diagnose(expected, all, problem->explanations(of_rows));
  }

 private:
  static std::optional<JudgedKeys> keys_of(const Op& op, const RowSample& sample, const RowPart& part,
                                           const PartReader& read, const ProgressFunction& progress) {
    if (!sample.judges_keys()) return std::nullopt;
    return std::make_optional<JudgedKeys>(op, sample, part, read, [&](double done) { progress(done / 2); });
  }
};

/// Findings about all parts, which are added in their order.
class Gathered {
 public:
  Gathered(const Op& op, const Case& c, const RowSample& sample, const Wanted& wanted)
      : op_(op), case_(c), sample_(sample), wanted_(wanted) {
    findings_.file = c.file;
    findings_.name = c.name;
    findings_.op = c.op;
    findings_.about = c.about;
    findings_.judged = sample.text();
  }

  void add(JudgedPart& part) {
    inputs_.add(part.inputs);
    findings_.contract = part.problem->contract();
    findings_.settled = part.problem->contract_keys().settled();
    add_new(findings_.remarks, part.problem->remarks());
    if (wanted_.diagnosis && findings_.diagnosis.empty() &&
        std::ranges::any_of(part.expected, has_wrong_elements))
      findings_.diagnosis = part.diagnosis();
    if (part.keys && !part.keys->unusable().empty())
      add_new(findings_.remarks,
              {"dk and dv are judged without rows whose lse or o cannot be right; of these, "
               "some are among the judged rows"});
    for (const Expected& e : part.expected) {
      const auto [it, is_new] = joined_.try_emplace(e.output, e.output, case_.out.at(e.output));
      if (is_new) order_.push_back(e.output);
      for (Decoy& answer : part.wrong) {
        if (answer.output != e.output) continue;
        for (Index& at : answer.at) at += it->second.size();
      }
      it->second.add(e, sample_.place(part.rows, e.output));
    }
    std::ranges::move(part.wrong, std::back_inserter(answers_));
  }

  /// Call once, after the last part.
  CaseFindings take() {
    std::vector<Expected> expected;
    for (const std::string& name : order_) {
      Joined& joined = joined_.at(name);
      expected.push_back(joined.take());
      OutputFindings& found = findings_.outputs.emplace_back(compare(expected.back()));
      const std::vector<Axis> axes = output_axes(op_, case_, name);
      joined.place(found, expected.back(), axes);
      if (wanted_.pictures) found.picture = joined.picture(op_, axes, expected.back());
      if (wanted_.regions) found.regions = spread_by_region(op_, axes, expected.back(), joined.places());
    }
    findings_.inputs = inputs_.text();
    judge(findings_, expected, answers_);
    if (sample_.judges_keys() && std::ranges::any_of(findings_.outputs, [](const OutputFindings& o) {
          return (o.name == "lse" || o.name == "o") && o.verdict == Verdict::fail;
        }))
      findings_.remarks.push_back("dk and dv are judged from the dumped lse and o, which are wrong");
    add_new(findings_.remarks, sample_.not_judged());
    return std::move(findings_);
  }

 private:
  const Op& op_;
  const Case& case_;
  const RowSample& sample_;
  const Wanted wanted_;
  CaseFindings findings_;
  std::map<std::string, Joined> joined_;
  std::vector<std::string> order_;
  std::vector<Decoy> answers_;
  Digest inputs_;
};

/// Parts in memory at a time, each judged by its share of the threads: what a part does alone, such as making
/// or reading its keys, then keeps all of them busy.
constexpr int most_at_a_time = 4;

/// Runs work(n) for every n below `count`, up to most_at_a_time of them together, and after(n) in their
/// order, one after another. Nothing more is begun after an exception, of which the first in order is thrown.
template <class Work, class After>
void in_order(Index count, const Work& work, const After& after) {
  const int threads = omp_get_max_threads(), at_a_time = std::clamp(threads, 1, most_at_a_time);
  const int inner = threads / at_a_time, levels = omp_get_max_active_levels();
  if (inner > 1) omp_set_max_active_levels(2);
  std::exception_ptr failure;
  std::atomic<bool> has_failed = false;
#pragma omp parallel num_threads(at_a_time)
  {
    omp_set_num_threads(inner);
#pragma omp for ordered schedule(dynamic, 1)
    for (Index n = 0; n < count; ++n) {
      decltype(work(n)) result{};
      std::exception_ptr error;
      try {
        if (!has_failed) result = work(n);
      } catch (...) {
        error = std::current_exception();
      }
#pragma omp ordered
      {
        try {
          if (!failure && error) std::rethrow_exception(error);
          if (!failure && result) after(*result);
        } catch (...) {
          failure = std::current_exception();
          has_failed = true;
        }
      }
    }
  }
  omp_set_max_active_levels(levels);
  if (failure) std::rethrow_exception(failure);
}

}  // namespace

CaseFindings verify_rows(const Case& c, const RowSample& sample, const PartReader& read, Progress& progress,
                         const Wanted& wanted) {
  const Op& op = find_op(c);
  check_ports(op, c);
  Gathered gathered(op, c, sample, wanted);
  const std::vector<RowPart>& parts = sample.parts();
  std::vector<double> done(parts.size());
  const auto advance = [&](Index n, double share) {
#pragma omp critical(attest_verify_rows)
    {
      done[n] = share;
      progress.advance(std::accumulate(done.begin(), done.end(), 0.0) / static_cast<double>(parts.size()));
    }
  };
  in_order(
      std::ssize(parts),
      [&](Index n) {
        return std::make_unique<JudgedPart>(op, sample, parts[n], read, wanted,
                                            [&, n](double share) { advance(n, share); });
      },
      [&](JudgedPart& part) { gathered.add(part); });
  return gathered.take();
}

}  // namespace attest
