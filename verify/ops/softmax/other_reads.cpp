// Rows of a softmax that read x, or the mask, of another row.
#include <algorithm>
#include <cmath>
#include <iterator>
#include <map>

#include "verify/ops/softmax/problem.hpp"
#include "verify/ops/softmax/stages.hpp"

namespace attest {
namespace {

using Values = std::vector<double>;

constexpr Index most_places_apart = 4;

/// What has to agree, of the elements that do not agree with the right row.
constexpr double least_share = 0.9;
constexpr Index least_elements = 16;

}  // namespace

std::vector<Decoy> SoftmaxProblem::other_reads(const std::vector<Index>& some_rows) const {
  std::vector<Decoy> all = rows_of_mask(some_rows);
  std::ranges::move(rows_of_x(some_rows), std::back_inserter(all));
  return all;
}

std::vector<Decoy> SoftmaxProblem::rows_of_mask(const std::vector<Index>& some_rows) const {
  std::vector<Decoy> all;
  const Tensor* given_mask = case_.input("mask");
  // A row of the mask is one of x, or that of several.
  if (!given_mask || inner_ != 1 || given_mask->shape.empty() || given_mask->shape.back() != n_) return all;
  const Index count = given_mask->size() / n_;
  if (count < 2) return all;
  const SoftmaxVariant right{"", spec_};
  const auto add = [&](const std::string& name, const std::function<Index(Index row)>& mask_row) {
    std::ranges::move(answers(name, "", false, some_rows,
                              [&](Index row) {
                                const double* first = given_mask->values.data() + mask_row(row) * n_;
                                const Tensor* dy = case_.input("dy");
                                return computed_row(right, row_of(like_x(given().values.data()), row),
                                                    Values(first, first + n_),
                                                    dy ? row_of(like_x(dy->values.data()), row) : Values{});
                              }),
                      std::back_inserter(all));
  };
  const std::string rows_of = "the mask of another row: row r reads ";
  add(rows_of + "r mod " + std::to_string(count) + ", as if its rows took turns",
      [=](Index row) { return row % count; });
  add(rows_of + "0", [](Index) { return Index{0}; });
  const std::vector<Index>& shape = given().shape;
  Index step = 1;
  for (std::size_t a = shape.size() - 1; a-- > 0; step *= shape[a]) {
    if (step == 1 || shape[a] < 2) continue;
    const std::string by = std::to_string(step), turns = std::to_string(count);
    add(rows_of + "r / " + by + " mod " + turns, [=](Index row) { return row / step % count; });
  }
  if (rows() % count == 0) {
    const Index share = rows() / count;
    for (const Index by : {-1, 1}) {
      add(std::string("the mask of ") + (by < 0 ? "the batch entry before" : "the next batch entry"),
          [=](Index row) { return (row / share + by + count) % count; });
    }
  }
  return all;
}

std::vector<Decoy> SoftmaxProblem::rows_of_x(const std::vector<Index>& some_rows) const {
  std::vector<Decoy> all;
  if (!case_.output("y")) return all;
  const double stored = unit_roundoff(*case_.output("y")->dtype);
  const double least_normal = std::ldexp(1.0, format_of(*case_.output("y")->dtype).emin);
  const SoftmaxVariant right{"", spec_};
  struct Row {
    Index row;
    double lse;
    Values s, y;
  };
  const auto agrees = [&](double y, double s, double lse) {
    const double want = std::exp(s - lse), of_exp = 32 * unit_roundoff(compute_) * (1 + std::abs(s - lse));
    return std::abs(y - want) <= (2 * stored + of_exp) * want;
  };
  // The row sum, as most columns have it, or as lse does.
  std::vector<Row> wrong;
  std::vector<Index> differs(n_);
  Index count = 0;
  for (const Index row : some_rows) {
    const SoftmaxRow r = computed(right, row);
    if (!(r.l > 0) || may_be_special(row / inner_, row % inner_)) continue;
    Row of{row, 0, scores_of(row), row_of_output("y", row)};
    if (const Tensor* lse = case_.output("lse"); lse && lse->size() == rows()) {
      of.lse = lse->values[row];
    } else {
      Values offsets;
      for (Index j = 0; j < n_; ++j)
        if (of.y[j] >= least_normal && std::isfinite(of.s[j])) offsets.push_back(of.s[j] - std::log(of.y[j]));
      if (offsets.empty()) continue;
      const auto middle = offsets.begin() + static_cast<std::ptrdiff_t>(offsets.size() / 2);
      std::ranges::nth_element(offsets, middle);
      of.lse = *middle;
    }
    bool is_wrong = false;
    for (Index j = 0; j < n_; ++j) {
      if (!(of.y[j] >= least_normal) || agrees(of.y[j], of.s[j], of.lse)) continue;
      ++differs[j], ++count, is_wrong = true;
    }
    if (is_wrong) wrong.push_back(std::move(of));
  }
  if (count < least_elements || wrong.size() < 2) return all;
  const auto is_some = [](Index n) { return n > 0; };
  const Index first = std::ranges::find_if(differs, is_some) - differs.begin();
  const Index last = n_ - (std::find_if(differs.rbegin(), differs.rend(), is_some) - differs.rbegin());

  struct Place {
    std::string name;
    std::function<Index(Index row)> row;  // -1: none
  };
  std::vector<Place> places;
  for (const Index by : {-1, 1}) {
    for (Index n = 1; n <= most_places_apart; ++n) {
      const std::string distance =
          n == 1 ? (by < 0 ? "the index before" : "the next index")
                 : "the index " + std::to_string(n) + (by < 0 ? " before" : " further on");
      if (n < inner_)
        places.push_back({distance + " behind the axis", [=, this](Index row) {
                            return row / inner_ * inner_ + (row % inner_ + by * n + inner_) % inner_;
                          }});
      if (n < outer_)
        places.push_back({distance + " in front of the axis",
                          [=, this](Index row) { return (row + by * n * inner_ + rows()) % rows(); }});
    }
  }
  for (const Place& place : places) {
    Index agreeing = 0;
    for (const Row& of : wrong) {
      const Values s = scores_of(place.row(of.row));
      for (Index j = first; j < last; ++j) {
        const bool is_wrong = of.y[j] >= least_normal && !agrees(of.y[j], of.s[j], of.lse);
        agreeing += is_wrong && agrees(of.y[j], s[j], of.lse);
      }
    }
    if (static_cast<double>(agreeing) < least_share * static_cast<double>(count)) continue;
    const bool is_all = first == 0 && last == n_;
    const std::string where = is_all ? ""
                              : last == n_
                                  ? ", from column " + std::to_string(first) + " on"
                                  : ", in columns " + std::to_string(first) + ".." + std::to_string(last - 1);
    std::ranges::move(answers("x of " + place.name + where, "", false, some_rows,
                              [&](Index row) {
                                Values x = row_of(like_x(given().values.data()), row);
                                const Values other = row_of(like_x(given().values.data()), place.row(row));
                                std::copy(other.begin() + first, other.begin() + last, x.begin() + first);
                                const Tensor* dy = case_.input("dy");
                                return computed_row(right, std::move(x), row_of(mask(), row),
                                                    dy ? row_of(like_x(dy->values.data()), row) : Values{});
                              }),
                      std::back_inserter(all));
  }
  return all;
}

}  // namespace attest
