// One case by rows: its parts are judged one after another, and what they give is put together.
#include <algorithm>
#include <iterator>
#include <map>

#include "verify/axes.hpp"
#include "verify/compare.hpp"
#include "verify/diagnose.hpp"
#include "verify/digest.hpp"
#include "verify/judge.hpp"
#include "verify/picture_maker.hpp"
#include "verify/region.hpp"
#include "verify/region_statistics.hpp"
#include "verify/verify_case.hpp"

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

bool has_failure(std::span<const Expected> expected) {
  return std::ranges::any_of(expected, [](const Expected& e) {
    for (Index at = 0; at < e.dumped->size(); ++at)
      if (!within_bound(e, at, e.dumped->values[at])) return true;
    return false;
  });
}

}  // namespace

CaseFindings verify_rows(const Case& c, const RowSample& sample, const PartReader& read, Progress& progress,
                         const Shown& shown) {
  const Op& op = find_op(c);
  check_ports(op, c);
  CaseFindings findings;
  findings.file = c.file;
  findings.name = c.name;
  findings.op = c.op;
  findings.about = c.about;
  findings.judged = sample.text();

  std::map<std::string, Joined> joined;
  std::vector<std::string> order;
  std::vector<Decoy> answers;
  Digest inputs;
  for (std::size_t n = 0; n < sample.parts().size(); ++n) {
    const RowPart& part = sample.parts()[n];
    const Case some =
        sample.finished(read([&](const std::string& path) { return sample.selection(part, path); }), part);
    inputs.add(digest_of(some));
    const std::unique_ptr<Problem> problem = op.read(some);
    const double parts = static_cast<double>(sample.parts().size());
    const std::vector<Expected> expected =
        problem->expect([&](double done) { progress.advance((static_cast<double>(n) + done) / parts); });
    problem->recheck(expected);
    findings.contract = problem->contract();
    add_new(findings.remarks, problem->remarks());
    std::vector<Decoy> wrong = problem->decoys(expected);
    if (findings.diagnosis.empty() && has_failure(expected)) {
      std::vector<Decoy> all = wrong;
      std::ranges::move(problem->alternatives(expected), std::back_inserter(all));
      findings.diagnosis = diagnose(expected, all, problem->explanations(expected));
    }
    for (const Expected& e : expected) {
      const auto [it, is_new] = joined.try_emplace(e.output, e.output, c.out.at(e.output));
      if (is_new) order.push_back(e.output);
      for (Decoy& answer : wrong) {
        if (answer.output != e.output) continue;
        for (Index& at : answer.at) at += it->second.size();
      }
      it->second.add(e, *sample.selection(part, "out/" + e.output));
    }
    std::ranges::move(wrong, std::back_inserter(answers));
  }

  std::vector<Expected> expected;
  for (const std::string& name : order) {
    expected.push_back(joined.at(name).take());
    findings.outputs.push_back(compare(expected.back()));
    const std::vector<Axis> axes = output_axes(op, c, name);
    joined.at(name).place(findings.outputs.back(), expected.back(), axes);
    if (shown.pictures) findings.outputs.back().picture = joined.at(name).picture(op, axes, expected.back());
    if (shown.regions)
      findings.outputs.back().regions = spread_by_region(op, axes, expected.back(), joined.at(name).places());
  }
  findings.inputs = inputs.text();
  judge(findings, expected, answers);
  std::string missing;
  for (const std::string& name : sample.not_judged()) missing += (missing.empty() ? "" : ", ") + name;
  if (!missing.empty())
    findings.remarks.push_back("not judged: " + missing +
                               ", which have no rows of their own; --rows all does");
  return findings;
}

}  // namespace attest
