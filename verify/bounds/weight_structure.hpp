// Where the weights of a row are so regular that their rounding errors do not average out.
#pragma once

#include <span>

#include "verify/bounds/arithmetic.hpp"

namespace attest::bounds {

/// Found in the exact weights alone, before any device value is looked at. docs/bounds.md, "Structure".
struct WeightStructure {
  double multiplicity;       // effective number of keys that share a score: their errors are equal
  bool scores_repeat;        // so many that errors have to be added, not averaged
  double stagnation;         // share of the row sum lost because increments fall below half an ulp of it
  bool row_sum_is_coherent;  // weights fall into so few cells of an ulp of the sum that its roundings repeat
  bool few_stored_values;    // the same for the stored weights: few distinct values carry the row
};

/// p: weights of the keys that a row attends to, sum <= 1 (a sink may hold the rest); l: the row sum relative
/// to the row maximum.
WeightStructure weight_structure(std::span<const double> p, double l, const Arithmetic& arithmetic);

}  // namespace attest::bounds
