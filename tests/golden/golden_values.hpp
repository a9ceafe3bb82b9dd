// Reads what a golden file holds beside its dumps: the nearest float64 of every element.
#pragma once

#include <string>
#include <vector>

#include "verify/case.hpp"

namespace attest::test {

/// The cases of all files in data/golden, read once.
const std::vector<Case>& golden_cases();

/// Of one output: value n belongs to element n * step.
struct GoldenValues {
  Index step;
  std::vector<double> values;
};

/// Throws std::runtime_error if the file does not have them.
GoldenValues golden_values(const Case& c, const std::string& output);

/// Whether there are values of every element.
bool has_values(const Case& c, const std::string& output);

/// All elements, where has_values.
std::vector<double> all_golden_values(const Case& c, const std::string& output);

/// Of elements whose float64, rounded to the type, is not the nearest value of the type: the right ones, one
/// per value. Empty where there are none.
std::vector<double> golden_exceptions(const Case& c, const std::string& output, DType dtype);

/// How far the nearest float64 may be from the exact value.
double golden_error(double golden);

}  // namespace attest::test
