// Ways to get the forward pass of a normalisation wrong: weight and bias of other columns, statistics that
// rows share, and sums that are merged from those of threads.
#include "verify/ops/norm/variants.hpp"

namespace attest {
namespace {

using enum NormStage;

constexpr Index most_lanes = 1024, most_vector = 8, most_tile = 32;

class ForwardVariants {
 public:
  ForwardVariants(const NormSpec& spec, const NormInputs& in, DType compute)
      : right_{"", spec, in}, compute_(compute) {}

  void of_columns() {
    if (right_.in.weight) other_columns("weight", &NormVariant::weight_column);
    if (right_.in.bias) other_columns("bias", &NormVariant::bias_column);
    if (right_.in.weight && right_.in.bias) both_of_other_columns();
  }
  void of_components() {
    for (Index vector = 2; vector <= most_vector && vector < right_.in.width(); vector *= 2)
      for (Index place = 0; place < vector; ++place)
        for (const Index by : {-1, 1}) component(vector, place, by);
  }
  void of_statistics() {
    shared_statistics();
    threads();
    eager();
  }
  std::vector<NormVariant> take() { return std::move(all_); }

 private:
  using Column = std::function<Index(Index j)>;

  /// One component of each short vector takes the weight of its neighbour.
  void component(Index vector, Index place, Index by) {
    if (place + by < 0 || place + by >= vector) return;
    NormVariant& v = add(std::string("weight of column c ") + (by < 0 ? "- 1" : "+ 1") + " in column " +
                         std::to_string(place) + " of every " + std::to_string(vector));
    v.weight_column = [=, last = right_.in.width() - 1](Index j) {
      return j % vector == place ? std::min(j + by, last) : j;
    };
    v.is_of_whole_call = false;
  }

  NormVariant& add(std::string name) {
    all_.push_back(right_);
    all_.back().name = std::move(name);
    return all_.back();
  }

  std::vector<std::pair<std::string, Column>> columns() const {
    const Index width = right_.in.width();
    std::vector<std::pair<std::string, Column>> all;
    for (Index block = 1; block < width; block *= 2) {
      const std::string size = std::to_string(block);
      // Modulo a block, what its columns read is right.
      if (2 * block < width)
        all.push_back({" of column c modulo " + size, [=](Index j) { return j % block; }});
      all.push_back({" of column c - " + size, [=](Index j) { return j < block ? j : j - block; }});
      all.push_back({" of column c + " + size, [=](Index j) { return j + block < width ? j + block : j; }});
      if (block > 1) all.push_back({" of column c / " + size, [=](Index j) { return j / block; }});
    }
    all.push_back({" of the columns in reverse order", [=](Index j) { return width - 1 - j; }});
    return all;
  }
  void other_columns(const std::string& what, Column NormVariant::*column) {
    for (const auto& [name, of] : columns()) {
      NormVariant& v = add(what + name);
      v.*column = of;
      v.is_of_whole_call = false;
    }
  }
  void both_of_other_columns() {
    for (const auto& [name, of] : columns()) {
      NormVariant& v = add("weight and bias" + name);
      v.weight_column = v.bias_column = of;
      v.is_of_whole_call = false;
    }
    NormVariant& swapped = add("weight and bias exchanged");
    std::swap(swapped.in.weight, swapped.in.bias);
    swapped.is_of_whole_call = false;
  }

  void shared_statistics() {
    for (Index tile = 2; tile <= std::min(most_tile, right_.in.rows()); tile *= 2) {
      const std::string rows = std::to_string(tile) + " rows";
      for (const auto& [name, shared] :
           {std::pair{"rstd of the mean variance of each ", NormVariant::Shared::variance},
            std::pair{"rstd of the first of each ", NormVariant::Shared::first_row},
            std::pair{"rstd of the last of each ", NormVariant::Shared::last_row}}) {
        NormVariant& v = add(name + rows);
        v.tile = tile, v.shared = shared;
      }
    }
  }

  /// Sums of the threads of a row, which take some columns at a time.
  void threads() {
    const Index width = right_.in.width();
    for (Index lanes = 1; lanes <= most_lanes && lanes < width; lanes *= lanes == 1 ? 32 : 2) {
      for (Index vector = 1; vector <= most_vector; vector *= 2) {
        if (lanes == 1 && vector > 1) continue;
        const bool is_one = lanes == 1;
        const std::string of = " of each of " + std::to_string(lanes) + " threads" +
                               (vector == 1 ? "" : ", " + std::to_string(vector) + " columns at a time,");
        const auto with = [&](const std::string& name) -> NormVariant& {
          NormVariant& v = add(name);
          v.lanes = lanes, v.vector = vector;
          return v;
        };
        const bool are_unequal = !is_one && width % (lanes * vector) != 0;
        if (are_unequal && right_.spec.is_centred)
          with("threads merged as if all had as many columns: " + std::to_string(lanes) + " threads" +
               (vector == 1 ? "" : ", " + std::to_string(vector) + " columns at a time"))
              .merges_alike = true;
        for (const DType narrow : narrow_formats(compute_))
          for (const bool is_one_pass : {false, true})
            if (is_one ? is_one_pass && right_.spec.is_centred : right_.spec.is_centred || !is_one_pass)
              narrow_sums(lanes, vector, narrow, is_one_pass);
      }
    }
    for (const DType narrow : narrow_formats(compute_)) {
      if (!right_.spec.is_centred) continue;
      for (const auto& [name, stage] :
           {std::pair{"the sum of squares", sum_of_squares}, std::pair{"each square", square}}) {
        NormVariant& v = add(name + in_format(narrow) + ", less the mean squared");
        v.is_one_pass = true;
        v.change = [narrow, stage = stage](NormStage at, double x) {
          return at == stage ? round_to(x, narrow) : x;
        };
      }
    }
  }

  /// Sums of squares of threads, and those that are merged from them. Of one thread alone: see norm_variants.
  void narrow_sums(Index lanes, Index vector, DType narrow, bool is_one_pass) {
    using Merge = NormVariant::Merge;
    const std::string threads = " of each of " + std::to_string(lanes) + " threads" +
                                (vector == 1 ? "" : ", " + std::to_string(vector) + " columns at a time,");
    struct Way {
      const char *what, *how;
      Merge merge;
      bool rounds_squares;
    };
    for (const Way& way :
         {Way{"the sum of squares", "", Merge::in_order, false},
          Way{"squares and their sum", "", Merge::in_order, true},
          Way{"the sum of squares", " and as merged", Merge::halves, false},
          Way{"the sum of squares", " and as merged, neighbours first,", Merge::neighbours, false}}) {
      if (lanes == 1 && way.merge != Merge::in_order) continue;
      NormVariant& v = add((way.what + (lanes == 1 ? ", one by one," : threads)) + way.how +
                           in_format(narrow) + (is_one_pass ? ", less the mean squared" : ""));
      v.lanes = lanes, v.vector = vector, v.merge = way.merge, v.is_one_pass = is_one_pass;
      // Of one pass: sums of x are another matter.
      v.rounds_squares_only = true;
      v.change = [narrow, rounds_squares = way.rounds_squares](NormStage stage, double x) {
        const bool is_rounded =
            stage == running_sum || stage == merged_sum || (rounds_squares && stage == square);
        return is_rounded ? round_to(x, narrow) : x;
      };
    }
  }

  /// As a framework computes it operation by operation: only its sums are wider.
  void eager() {
    for (const DType narrow : narrow_formats(compute_)) {
      add("every operation" + in_format(narrow) + ", but for its sums").change = [narrow](NormStage stage,
                                                                                          double x) {
        return stage == running_sum || stage == merged_sum || stage == sum_of_squares ? x
                                                                                      : round_to(x, narrow);
      };
    }
  }

  NormVariant right_;
  DType compute_;
  std::vector<NormVariant> all_;
};

}  // namespace

std::vector<NormVariant> norm_forward_variants(const NormSpec& spec, const NormInputs& in, DType compute) {
  ForwardVariants variants(spec, in, compute);
  variants.of_columns();
  variants.of_statistics();
  return variants.take();
}

std::vector<NormVariant> norm_column_variants(const NormSpec& spec, const NormInputs& in, DType compute) {
  ForwardVariants variants(spec, in, compute);
  variants.of_columns();
  if (in.weight) variants.of_components();
  return variants.take();
}

}  // namespace attest
