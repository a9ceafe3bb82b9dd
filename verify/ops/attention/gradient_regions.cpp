// A gradient's errors held against what known faults would make of it, everywhere or in some tiles of its
// sums.
//
// A fault changes each term of a row's sum by some vector. Summed over bins of neighbouring terms these are
// d_b, and a fault in the bins S leaves |error - sum_(b in S) d_b|^2 of the squared errors: products of the
// bins tell it for all S.
#include "verify/ops/attention/gradient_regions.hpp"

#include <algorithm>
#include <cmath>
#include <iterator>
#include <optional>
#include <string>

#include "verify/compare.hpp"
#include "verify/diagnosis/grid.hpp"
#include "verify/ops/attention/explanations.hpp"
#include "verify/ops/attention/gradient_terms.hpp"
#include "verify/ops/sample.hpp"

namespace attest {
namespace {

constexpr Index most_rows = 12, rows_to_screen = 3, most_bins = 32, smallest_bin = 16;
constexpr double least_screened = 0.5, least_explained = 0.85;
constexpr double least_better = 0.004;  // of the share explained, to be preferred to what is simpler
constexpr double most_operations = 8e9, usual_faults = 750;

/// A row of the gradient: its terms, and its error.
struct Row {
  QueryPlace at;  // of dk and dv: i is the key, h its head
  std::vector<GradientTerm> terms;
  std::vector<Index> place;  // of each term, in its head
  std::vector<Index> head;   // of each term, within its group
  std::vector<double> weight;
  std::vector<double> error, sigma;
  Index first_seen = 0, last_seen = -1;  // places that have weight
  double squares = 0;                    // of error / sigma
};

/// Bins of the terms of a sum.
struct Bins {
  Index width, count, places, heads;
};

/// Of the gradient: those that err, if they are not all.
struct Columns {
  Index first, count;
};

/// Where a fault may be, for each row: which bins.
struct Region {
  std::string name;
  std::vector<std::vector<Index>> of_row;
};

class Gradient {
 public:
  Gradient(const AttentionCase& attention, std::span<const SavedForBackward> saved, const Expected& e)
      : attention_(attention), e_(e), pass_(attention, saved, e.output), is_dq_(e.output == "dq") {
    find_places();
    if (places_.empty()) return;
    Index longest = 0;
    for (std::size_t n = 0; n < pass_.sequences(); ++n)
      longest = std::max(longest, is_dq_ ? pass_.in(n).keys() : pass_.in(n).queries());
    bins_.places = longest;
    bins_.heads = is_dq_ ? 1 : pass_.in(0).group();
    bins_.width = smallest_bin;
    while ((longest + bins_.width - 1) / bins_.width > most_bins) bins_.width *= 2;
    bins_.count = (longest + bins_.width - 1) / bins_.width;
    const double terms = static_cast<double>(longest * bins_.heads * pass_.width());
    if (terms * static_cast<double>(rows_to_screen) * usual_faults > most_operations) return;
    for (const Index n : evenly_spread(std::ssize(places_), most_rows)) add_row(places_[n]);
  }

  const BackwardPass& pass() const { return pass_; }
  const std::vector<Row>& rows() const { return rows_; }
  const Bins& bins() const { return bins_; }
  const Columns& columns() const { return columns_; }
  std::string where() const;

 private:
  View<const double, 3> view_of(std::size_t n, const double* data) const {
    Sequence s = attention_.sequences[n];
    if (is_dq_) return attention_.like_q(data, s);
    if (pass_.in(n).keys() > pass_.keys(n)) s.keys = pass_.in(n).keys();
    return e_.output == "dk" ? attention_.like_k(data, s) : attention_.like_v(data, s);
  }
  void find_places();
  void find_columns(const std::vector<Index>& wrong);
  void add_row(const QueryPlace& at);

  const AttentionCase& attention_;
  const Expected& e_;
  const BackwardPass pass_;
  const bool is_dq_;
  std::vector<QueryPlace> places_;  // wrong ones
  std::vector<Row> rows_;
  Bins bins_{};
  Columns columns_{};
};

void Gradient::find_places() {
  std::vector<Index> wrong(pass_.width());  // elements of each column
  for (std::size_t n = 0; n < pass_.sequences(); ++n) {
    const View<const double, 3> view = view_of(n, e_.value.data());
    for (Index h = 0; h < view.extent(0); ++h) {
      for (Index i = 0; i < view.extent(1); ++i) {
        bool is_wrong = false, is_finite = true;
        for (Index d = 0; d < view.extent(2); ++d) {
          const Index at = &view(h, i, d) - e_.value.data();
          const bool is_right = within_bound(e_, at, e_.dumped->values[at]);
          is_wrong |= !is_right, wrong[d] += !is_right;
          is_finite &= std::isfinite(e_.dumped->values[at]) && std::isfinite(e_.value[at]);
        }
        if (is_wrong && is_finite) places_.push_back({n, h, i});
      }
    }
  }
  find_columns(wrong);
}

/// Whole vectors of columns, where most elements are wrong, and no other is.
void Gradient::find_columns(const std::vector<Index>& wrong) {
  constexpr Index vector = 8;
  const Index width = std::ssize(wrong);
  Index first = 0, last = width, total = 0;
  while (first < width && wrong[first] == 0) ++first;
  while (last > first && wrong[last - 1] == 0) --last;
  for (const Index n : wrong) total += n;
  const bool is_part = first % vector == 0 && (last % vector == 0 || last == width);
  const bool are_most = 2 * total > (last - first) * std::ssize(places_);
  columns_ = is_part && are_most ? Columns{first, last - first} : Columns{0, width};
}

void Gradient::add_row(const QueryPlace& at) {
  Row row;
  row.at = at;
  const View<const double, 3> view = view_of(at.n, e_.value.data());
  for (Index d = columns_.first; d < columns_.first + columns_.count; ++d) {
    const Index n = &view(at.h, at.i, d) - e_.value.data();
    const double got = e_.dumped->values[n], spacing = ulp(std::abs(got), e_.dtype);
    row.error.push_back(got - e_.value[n]);
    row.sigma.push_back(std::sqrt(e_.sigma[n] * e_.sigma[n] + spacing * spacing / 12));
    row.squares += std::pow(row.error.back() / row.sigma.back(), 2);
  }
  const AttentionInputs& in = pass_.in(at.n);
  const auto add = [&](QueryPlace from, Index j, Index place, Index head) {
    row.terms.push_back(pass_.term(from, j));
    row.place.push_back(place);
    row.head.push_back(head);
    row.weight.push_back(pass_.weight(row.terms.back()));
    if (row.weight.back() == 0) return;
    if (row.last_seen < 0) row.first_seen = place;
    row.first_seen = std::min(row.first_seen, place);
    row.last_seen = std::max(row.last_seen, place);
  };
  if (is_dq_) {
    for (Index j = 0; j < in.keys(); ++j) add(at, j, j, 0);
  } else {
    const Index past = attention_.sequences[at.n].in_backward.past;
    for (Index head = 0; head < in.group(); ++head) {
      for (Index i = 0; i < in.queries(); ++i) add({at.n, at.h * in.group() + head, i}, at.i + past, i, head);
    }
  }
  rows_.push_back(std::move(row));
}

std::string Gradient::where() const {
  Index first = places_.front().i, last = first;
  for (const QueryPlace& at : places_) first = std::min(first, at.i), last = std::max(last, at.i);
  return std::to_string(first) + ".." + std::to_string(last);
}

/// What a fault does to a row, in units of sigma.
class Change {
 public:
  Change(const Gradient& gradient, const Row& row, const GradientFault& fault)
      : row_(row),
        count_(gradient.bins().count),
        width_(gradient.columns().count),
        of_bin_(count_ * width_),
        products_(count_ * count_),
        with_error_(count_) {
    const BackwardPass& pass = gradient.pass();
    const Bins& bins = gradient.bins();
    std::vector<bool> is_changed(bins.count);
    if (bins.heads > 1) of_head_.resize(bins.heads * width_);
    for (std::size_t n = 0; n < row.terms.size(); ++n) {
      GradientTerm term = row.terms[n];
      fault.change(term);
      const double weight = pass.weight(term);
      const bool is_same_vector = term.vector == row.terms[n].vector;
      if ((weight == row.weight[n] && is_same_vector) || (weight == 0 && row.weight[n] == 0)) continue;
      if (!std::isfinite(weight)) {  // the row would not be: the fault explains nothing of it
        std::ranges::fill(of_head_, 0.0);
        return;
      }
      const Index bin = row.place[n] / bins.width;
      is_changed[bin] = true;
      double* const to = &of_bin_[bin * width_];
      double* const to_head = bins.heads > 1 ? &of_head_[row.head[n] * width_] : nullptr;
      for (Index d = 0; d < width_; ++d) {
        const Index at = (gradient.columns().first + d) * pass.vector_step();
        const double change = weight * term.vector[at] - row.weight[n] * row.terms[n].vector[at];
        to[d] += change;
        if (to_head) to_head[d] += change;
      }
    }
    for (Index b = 0; b < count_; ++b)
      if (is_changed[b]) changed_.push_back(b);
    for (std::size_t x = 0; x < of_bin_.size(); ++x) of_bin_[x] /= row.sigma[x % width_];
    for (std::size_t x = 0; x < of_head_.size(); ++x) of_head_[x] /= row.sigma[x % width_];
    for (const Index b : changed_) {
      const double* const x = &of_bin_[b * width_];
      for (Index d = 0; d < width_; ++d) with_error_[b] += x[d] * row.error[d] / row.sigma[d];
      for (const Index c : changed_) {
        if (c > b) break;
        double sum = 0;
        for (Index d = 0; d < width_; ++d) sum += x[d] * of_bin_[c * width_ + d];
        products_[b * count_ + c] = products_[c * count_ + b] = sum;
      }
    }
  }

  bool changes_anything() const { return !changed_.empty(); }
  /// The share of the squared errors that a fault in some bins explains.
  double explained(const std::vector<Index>& bins) const {
    double gain = 0;
    for (const Index b : bins) {
      gain += 2 * with_error_[b];
      for (const Index c : bins) gain -= products_[b * count_ + c];
    }
    return share(gain);
  }
  double explained_by_head(Index head) const {
    double gain = 0;
    for (Index d = 0; d < width_; ++d) {
      const double x = of_head_[head * width_ + d];
      gain += x * (2 * row_.error[d] / row_.sigma[d] - x);
    }
    return share(gain);
  }

 private:
  double share(double gain) const {
    // What a kernel that keeps the contract errs anyhow needs no explanation.
    return std::clamp(gain / std::max(row_.squares - static_cast<double>(width_), row_.squares / 2), -1.0,
                      1.0);
  }

  const Row& row_;
  const Index count_, width_;
  std::vector<double> of_bin_, of_head_, products_, with_error_;
  std::vector<Index> changed_;
};

std::string range(Index first, Index last) {
  return std::to_string(first) + ".." + std::to_string(last);
}

/// All bins first, then what kernels treat apart: the first tiles, the last ones, one, every other, those
/// where a row begins or ends.
std::vector<Region> regions(const Bins& bins, std::span<const Row> rows, const std::string& terms) {
  std::vector<Region> all;
  const auto add = [&](const std::string& name, auto holds) {
    Region& region = all.emplace_back(Region{name, {}});
    for (const Row& row : rows) {
      std::vector<Index>& of_row = region.of_row.emplace_back();
      for (Index b = 0; b < bins.count; ++b)
        if (holds(row, b)) of_row.push_back(b);
    }
  };
  add("", [](const Row&, Index) { return true; });
  const auto last_of = [&](Index end) { return std::min(end * bins.width, bins.places) - 1; };
  for (const Index size : {64, 128, 32, 16, 256}) {
    if (size % bins.width != 0 || size >= bins.places) continue;
    const auto tile_of = [size](Index place) { return place / size; };
    const auto tile_of_bin = [tile = size / bins.width](Index b) { return b / tile; };
    const std::string of = " tile of " + std::to_string(size) + " " + terms + " that takes part";
    add(", in the last" + of,
        [=](const Row& row, Index b) { return tile_of_bin(b) == tile_of(row.last_seen); });
    add(", in the first" + of,
        [=](const Row& row, Index b) { return tile_of_bin(b) == tile_of(row.first_seen); });
    add(", in all but the first" + of,
        [=](const Row& row, Index b) { return tile_of_bin(b) != tile_of(row.first_seen); });
    add(", in all but the last" + of,
        [=](const Row& row, Index b) { return tile_of_bin(b) != tile_of(row.last_seen); });
  }
  for (Index cut = 1; cut < bins.count; ++cut) {
    add(", in " + terms + " from " + std::to_string(cut * bins.width) + " on",
        [=](const Row&, Index b) { return b >= cut; });
    add(", in " + terms + " " + range(0, cut * bins.width - 1), [=](const Row&, Index b) { return b < cut; });
  }
  for (Index tile = 1; tile < bins.count; tile *= 2) {
    for (Index first = 0; first < bins.count; first += tile) {
      const Index end = first + tile;
      add(", in " + terms + " " + range(first * bins.width, last_of(end)),
          [=](const Row&, Index b) { return b >= first && b < end; });
    }
  }
  // Those of one warp, or of one of several buffers.
  for (Index tile = 1; tile * bins.width <= 128; tile *= 2) {
    for (const Index period : {2, 4, 8}) {
      if (period * tile > bins.count) break;
      for (Index first = 0; first < period; ++first) {
        add(", in " + std::to_string(tile * bins.width) + " of every " +
                std::to_string(period * tile * bins.width) + " " + terms + ", from " +
                std::to_string(first * tile * bins.width) + " on",
            [=](const Row&, Index b) { return b / tile % period == first; });
      }
    }
  }
  // A ring of buffers is counted from where a loop begins, at a row's own tile or at one of a larger tile.
  for (const Index size : {64, 128, 32, 16}) {
    if (size % bins.width != 0 || size >= bins.places) continue;
    for (const Index larger : {size, 2 * size}) {
      for (const auto& [name, count] : {std::pair{"second", Index{1}}, {"third", 2}, {"fourth", 3}}) {
        add(std::string(", in the ") + name + " tile of " + std::to_string(size) + " " + terms +
                " that takes part" +
                (larger == size ? "" : ", from a multiple of " + std::to_string(larger) + " on"),
            [=, width = bins.width, n = count](const Row& row, Index b) {
              return b * width / size == row.first_seen / larger * larger / size + n;
            });
      }
    }
  }
  return all;
}

struct Explanation {
  std::size_t fault = 0;
  std::string where;
  double share = 0;
};

/// The region, or the head of a group, that explains most over these rows.
Explanation best_region(const Gradient& gradient, const GradientFault& fault, std::span<const Region> regions,
                        std::span<const Index> rows) {
  std::vector<Change> changes;
  for (const Index n : rows) changes.emplace_back(gradient, gradient.rows()[n], fault);
  Explanation best;
  if (std::ranges::none_of(changes, &Change::changes_anything)) return best;
  const auto consider = [&](const std::string& where, auto explained) {
    double share = 0;
    for (std::size_t n = 0; n < changes.size(); ++n)
      share += explained(changes[n], rows[n]) / static_cast<double>(changes.size());
    if (share > best.share + least_better) best.where = where, best.share = share;
  };
  for (const Region& region : regions) {
    consider(region.name, [&](const Change& x, Index row) { return x.explained(region.of_row[row]); });
  }
  for (Index head = 0; gradient.bins().heads > 1 && head < gradient.bins().heads; ++head) {
    consider(", in head " + std::to_string(head) + " of each group",
             [&](const Change& x, Index) { return x.explained_by_head(head); });
  }
  return best;
}

}  // namespace

std::vector<DiagnosisEntry> misread_gradient(const AttentionCase& attention,
                                             std::span<const SavedForBackward> saved, const Expected& e) {
  const Gradient gradient(attention, saved, e);
  if (gradient.rows().empty()) return {};
  std::vector<GradientFault> faults = wrong_reads_of_gradients(gradient.pass());
  std::ranges::move(wrong_stages_of_gradients(gradient.pass()), std::back_inserter(faults));
  std::ranges::move(wrong_options_of_gradients(gradient.pass()), std::back_inserter(faults));
  const std::vector<Region> where =
      regions(gradient.bins(), gradient.rows(), e.output == "dq" ? "keys" : "query rows");

  const Index count = std::ssize(gradient.rows());
  const std::vector<Index> few = evenly_spread(count, rows_to_screen), many = evenly_spread(count, count);
  std::vector<Explanation> found(faults.size());
#pragma omp parallel for schedule(dynamic, 1)
  for (std::size_t n = 0; n < faults.size(); ++n) {
    if (best_region(gradient, faults[n], where, few).share < least_screened) continue;
    found[n] = best_region(gradient, faults[n], where, many);
    found[n].fault = n;
  }
  const Explanation* best = nullptr;
  for (const bool is_everywhere : {true, false}) {
    for (const Explanation& x : found) {
      if (x.where.empty() == is_everywhere && (!best || x.share > best->share + least_better)) best = &x;
    }
  }
  if (!best || best->share < least_explained) return {};
  const auto [column, columns] = gradient.columns();
  const std::string in_columns =
      columns == gradient.pass().width()
          ? ""
          : ", in columns " + range(column, column + columns - 1) + " of " + e.output;
  return {{"backward: " + faults[best->fault].name + best->where + in_columns, std::min(best->share, 0.95),
           "explains " + percent(best->share) + " of the squared errors of " + std::to_string(count) +
               " rows of " + e.output + " among " + (e.output == "dq" ? "rows " : "keys ") +
               gradient.where()}};
}

}  // namespace attest
