// Quantiles of Student's t distribution.
#pragma once

#include "core/view.hpp"

namespace attest {

/// The t that a variable of that many degrees of freedom (at least 1) exceeds in absolute value with the
/// given probability, in (1e-12, 1).
double student_quantile(Index freedom, double probability);

}  // namespace attest
