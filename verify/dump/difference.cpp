// Compares values, counts, and says in words where they differ.
#include "verify/dump/difference.hpp"

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstdint>
#include <limits>
#include <numeric>

#include "core/dtype.hpp"
#include "verify/axes/extents.hpp"

namespace attest {
namespace {

constexpr double infinity = std::numeric_limits<double>::infinity();

/// Both are values of the type; integers and booleans have steps of 1.
double steps_between(double a, double b, std::optional<DType> dtype) {
  if (std::isnan(a) || std::isnan(b)) return infinity;
  if (!dtype) return std::abs(a - b);
  const std::uint64_t sign = std::uint64_t{1} << (format_of(*dtype).bits - 1);
  const std::uint64_t steps_a = encode(a, *dtype) & (sign - 1);  // from zero, since formats are ordered
  const std::uint64_t steps_b = encode(b, *dtype) & (sign - 1);
  const bool same_side = std::signbit(a) == std::signbit(b);
  return static_cast<double>(same_side ? std::max(steps_a, steps_b) - std::min(steps_a, steps_b)
                                       : steps_a + steps_b);
}

}  // namespace

DifferenceCollector::DifferenceCollector(std::string name, const Tensor& whole, std::vector<Axis> axes,
                                         const std::vector<const Tensor*>& parts)
    : axes_(std::move(axes)), region_(axes_) {
  found_.name = std::move(name);
  found_.type_name = whole.type_name;
  found_.shape = whole.shape;
  found_.elements = whole.size();

  found_.where = mismatch(whole, parts);
  if (found_.where.empty()) return;
  found_.different = found_.elements;
  found_.ulps = infinity;
}

std::string DifferenceCollector::mismatch(const Tensor& whole, const std::vector<const Tensor*>& parts) {
  std::string shapes;
  for (const Tensor* part : parts) {
    if (part->type_name != whole.type_name) return "type " + whole.type_name + " against " + part->type_name;
    shapes += (shapes.empty() ? "" : " and ") + shape_text(part->shape);
  }
  return place(whole, parts) ? "" : "shape " + shape_text(whole.shape) + " against " + shapes;
}

bool DifferenceCollector::place(const Tensor& whole, const std::vector<const Tensor*>& parts) {
  const bool all_equal = std::ranges::all_of(parts, [&](const Tensor* p) { return p->shape == whole.shape; });
  const auto batch = std::ranges::find(axes_, AxisKind::batch, &Axis::kind);
  if (all_equal && (parts.size() == 1 || batch == axes_.end() || batch->extent == 1)) {
    is_shared_ = parts.size() > 1;
    placements_.assign(parts.size(), {0, 1});
    inner_ = whole.size();
    return true;
  }
  if (parts.size() < 2 || batch == axes_.end()) return false;
  const auto axis = batch - axes_.begin();  // before a merged axis, if there is any
  Index first = 0;
  for (const Tensor* part : parts) {
    if (part->shape.size() != whole.shape.size()) return false;
    std::vector<Index> shape = whole.shape;
    shape[axis] = part->shape[axis];
    if (part->shape != shape) return false;
    placements_.push_back({first, part->shape[axis]});
    first += part->shape[axis];
  }
  if (first != whole.shape[axis]) {
    placements_.clear();
    return false;
  }
  extent_ = whole.shape[axis];
  for (Index i = 0; i < std::ssize(whole.shape); ++i)
    if (i != axis) (i < axis ? outer_ : inner_) *= whole.shape[i];
  return true;
}

void DifferenceCollector::add(const Tensor& whole, const Tensor& part, std::size_t index) {
  if (placements_.empty()) return;
  const Placement& p = placements_[index];
  const Index block = p.count * inner_;
  for (Index o = 0; o < outer_; ++o) {
    const Index start = (o * extent_ + p.first) * inner_;
    for (Index i = 0; i < block; ++i) {
      const double a = whole.values[start + i], b = part.values[o * block + i];
      if (std::bit_cast<std::uint64_t>(a) != std::bit_cast<std::uint64_t>(b)) {
        add_element(whole, start + i, a, b);
      } else if (std::isnan(a)) {
        ++found_.both_nan;
      }
    }
  }
}

void DifferenceCollector::add_element(const Tensor& whole, Index flat, double a, double b) {
  ++found_.different;
  if (a == b) ++found_.zero_signs;
  found_.ulps = std::max(found_.ulps, steps_between(a, b, whole.dtype));
  if (first_ < 0 || flat < first_) {
    first_ = flat;
    found_.a = a;
    found_.b = b;
  }
  region_.add(flat);
}

TensorDifference DifferenceCollector::result() const {
  TensorDifference result = found_;
  if (first_ < 0) return result;
  result.at.resize(result.shape.size());
  Index flat = first_;
  for (std::size_t axis = result.at.size(); axis-- > 0; flat /= result.shape[axis])
    result.at[axis] = flat % result.shape[axis];
  result.where = region_.text();
  return result;
}

}  // namespace attest
