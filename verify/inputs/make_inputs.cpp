// What the makers of inputs share: spec keys with fallbacks, and what a file says of its making.
#include "verify/inputs/make_inputs.hpp"

namespace attest {

double number_of(InputRequest& request, const std::string& key, double fallback) {
  const auto [it, is_new] = request.spec.try_emplace(key, fallback);
  if (const auto* whole = std::get_if<std::int64_t>(&it->second)) return static_cast<double>(*whole);
  return std::get<double>(it->second);
}

Index integer_of(InputRequest& request, const std::string& key, Index fallback) {
  return std::get<std::int64_t>(request.spec.try_emplace(key, std::int64_t{fallback}).first->second);
}

std::string text_of(InputRequest& request, const std::string& key, const std::string& fallback) {
  return std::get<std::string>(request.spec.try_emplace(key, fallback).first->second);
}

GeneratedCase case_for(const InputRequest& request, const std::string& op) {
  return {request.recipe,
          op,
          request,
          {{"recipe", request.recipe},
           {"seed", std::to_string(request.seed)},
           {"generator", "attest inputs, version " + std::to_string(generator_version) + " (Philox4x32-10)"}},
          {}};
}

}  // namespace attest
