// Kernels that multiply q or k by the scale and store it before they multiply it with the other.
#include <cmath>

#include "core/invalid_case.hpp"
#include "verify/ops/attention/case.hpp"
#include "verify/text.hpp"

namespace attest {

std::vector<double> AttentionCase::scaled(const std::string& name, double factor) const {
  const Tensor& tensor = *case_.input(name);
  const float rounded = static_cast<float>(factor);
  std::vector<double> all;
  for (const double x : tensor.values)
    all.push_back(round_to(static_cast<float>(x) * rounded, *tensor.dtype) / rounded);
  return all;
}

void AttentionCase::scale_operands(const Contract& contract) {
  const auto reject = [&](const std::string& key, const std::string& why) {
    throw InvalidCase(case_.object("contract") + " attribute " + key + " is given; " + why);
  };
  const auto read = [&](const std::string& name, const std::string& key, double factor) -> const double* {
    if (contract.softmax_dtype == DType::float64) reject(key, "softmax_dtype in float64 has no such factor");
    const Tensor& tensor = *case_.input(name);
    const std::vector<double>& all = scaled_.emplace_back(scaled(name, factor));
    for (Index at = 0; at < tensor.size(); ++at) {
      if (std::isfinite(all[at]) || !std::isfinite(tensor.values[at])) continue;
      reject(key, "in/" + name + " at " + index_text(tensor, at) + " times " + number_text(factor, 6) +
                      " overflows " + tensor.type_name);
    }
    return all.data();
  };
  if (contract.q_factor) {
    const double* q = read("q", "q_factor", *contract.q_factor);
    for (Sequence& s : sequences) s.in.q = like_q(q, s);
  }
  if (contract.backward_k_factor) {
    if (past_ > 0) reject("backward_k_factor", "cases with in/past_k have no such factor");
    const double* k = read("k", "backward_k_factor", *contract.backward_k_factor);
    for (Sequence& s : sequences) s.in_backward.k = like_k(k, s);
  }
}

}  // namespace attest
