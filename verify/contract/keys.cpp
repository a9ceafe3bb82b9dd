// Contracts as dumps declare them, or as element types imply them.
#include "verify/contract/keys.hpp"

#include <iterator>

#include "verify/text.hpp"

namespace attest {
namespace {

constexpr std::string_view wide_fallback = "float32, or float64 for float64 inputs";

std::string accumulator_text(const Accumulator& accumulator) {
  const char* unit = accumulator.tf32 == Tf32::one     ? " (of tf32)"
                     : accumulator.tf32 == Tf32::three ? " (tf32 in three products)"
                     : accumulator.block > 0           ? " (tensor core)"
                                                       : "";
  return std::string(format_of(accumulator.dtype).name) + unit;
}

MatrixUnit read_matrix_unit(KeyReader& keys) {
  using enum MatrixUnit;
  return keys.choice<MatrixUnit>(
      "matrix_unit",
      {{"none", none}, {"hopper", hopper}, {"ampere", ampere}, {"volta", volta}, {"tf32", tf32}}, ampere);
}

Contract attention_keys(KeyReader& keys, DType operands, MatrixUnit unit) {
  const DType wide = wide_type(operands);
  Contract contract{};
  contract.p_dtype = read_dtype(keys, "p_dtype", operands);
  contract.softmax_dtype = read_dtype(keys, "softmax_dtype", wide);
  contract.qk = accumulator(read_dtype(keys, "qk_accumulate", wide), operands, unit);
  // Weights that are kept in float32 reach a tensor core as tf32 only.
  const bool are_converted = unit == MatrixUnit::tf32 && contract.p_dtype == DType::float32;
  contract.pv =
      accumulator(read_dtype(keys, "pv_accumulate", wide), are_converted ? contract.p_dtype : operands, unit);
  contract.row_sum_takes_stored_weights =
      keys.choice<bool>("row_sum", {{"computed", false}, {"stored", true}}, false);
  contract.weights = keys.choice<StoredWeights>("weights",
                                                {{"any", {}},
                                                 {"normalised", {true, false, 1}},
                                                 {"relative", {false, true, 1}},
                                                 {"relative_256", {false, true, 256}},
                                                 {"relative_448", {false, true, 448}}},
                                                StoredWeights{});
  contract.split_dtype = read_dtype(keys, "split_dtype", contract.softmax_dtype);
  if (unit_roundoff(*contract.split_dtype) <= unit_roundoff(contract.softmax_dtype))
    contract.split_dtype.reset();
  contract.exp_error = keys.relative_error("exp_error");
  contract.tanh_error = keys.relative_error("tanh_error");
  contract.scores_dtype = read_dtype(keys, "scores_dtype", contract.softmax_dtype);
  if (unit_roundoff(*contract.scores_dtype) <= unit_roundoff(contract.softmax_dtype))
    contract.scores_dtype.reset();
  return contract;
}

std::string weights_text(const StoredWeights& weights) {
  if (weights == StoredWeights{}) return "";
  if (weights.may_be_normalised) return ", weights normalised";
  const std::string unit =
      weights.unit == 1 ? "" : " times " + std::to_string(static_cast<int>(weights.unit));
  return ", weights relative" + unit;
}

std::string function_text(const char* name, const std::optional<double>& error) {
  return error ? std::string(", ") + name + " within " + number_text(*error, 3) : "";
}

std::string precisions_text(const Contract& contract) {
  return "p " + std::string(format_of(contract.p_dtype).name) + ", softmax " +
         std::string(format_of(contract.softmax_dtype).name) + ", qk in " + accumulator_text(contract.qk) +
         ", pv in " + accumulator_text(contract.pv) + weights_text(contract.weights) +
         (contract.row_sum_takes_stored_weights ? ", row sum of stored weights" : "") +
         function_text("exp", contract.exp_error) + function_text("tanh", contract.tanh_error) +
         (contract.scores_dtype ? ", scores stored in " + std::string(format_of(*contract.scores_dtype).name)
                                : "") +
         (contract.split_dtype
              ? ", o of splits stored in " + std::string(format_of(*contract.split_dtype).name)
              : "");
}

/// Those of every op with an attention in it.
std::vector<SpecKey> shared_contract_keys() {
  return {
      {"p_dtype", "element type", "that of in/q", "the weights, and dS, as operands of the second product",
       "float8_e5m2"},
      {"qk_accumulate", "element type", wide_fallback, "sums of q.k and of do.v", "bfloat16"},
      {"pv_accumulate", "element type", wide_fallback, "sums of the products with the weights and with dS",
       "bfloat16"},
      {"softmax_dtype", "element type", wide_fallback, "scores, exponentials, row sums, rescaling",
       "bfloat16"},
      {"scores_dtype", "element type", "softmax_dtype",
       "kernels that are not fused: q.k, scores, do.v and dS as they are stored between operations",
       "bfloat16"},
      {"matrix_unit", "none, hopper, ampere, volta, tf32", "ampere",
       "how products are added up in float32; none: every addition is rounded; hopper, ampere: on tensor "
       "cores, operands in float32 perhaps as three products of tf32; volta: those of 16 and 8 bits alone; "
       "tf32: as ampere, and operands in float32, weights among them, are converted to tf32",
       "tf32"},
      {"row_sum", "computed, stored", "computed",
       "the weights that the row sum adds: before or after p_dtype", "stored"},
      {"weights", "any, normalised, relative, relative_256, relative_448", "any",
       "how the forward pass stores weights: divided by the row sum, or relative to the running maximum, "
       "perhaps times 256 or 448"},
      {"split_dtype", "element type", "softmax_dtype",
       "kernels that split the keys: o of each split as it is stored before they are merged", "bfloat16"},
      {"exp_error", "number", "2 ulp of softmax_dtype",
       "relative error of the device's exp or exp2, where it is a table or a polynomial", "0.01"},
      {"tanh_error", "number", "2 ulp of softmax_dtype",
       "the same of tanh, for softcap: 2^-11 is what NVIDIA promises for tanh.approx.f32", "0.01"},
  };
}

}  // namespace

DType wide_type(DType operands) {
  return operands == DType::float64 ? DType::float64 : DType::float32;
}

DType read_dtype(KeyReader& keys, const std::string& key, DType fallback) {
  using enum DType;
  return keys.choice<DType>(key,
                            {{"float64", float64},
                             {"float32", float32},
                             {"float16", float16},
                             {"bfloat16", bfloat16},
                             {"float8_e4m3fn", float8_e4m3fn},
                             {"float8_e5m2", float8_e5m2}},
                            fallback);
}

Accumulator accumulator(DType sum, DType operands, MatrixUnit unit) {
  const int bits = format_of(operands).bits;
  const Accumulator plain{sum, 0, 0};
  if (sum != DType::float32 || bits > 32 || unit == MatrixUnit::none) return plain;
  // Hopper keeps 13 bits, 10 fewer than the 23 of float32; of others nothing better is known.
  if (bits == 8) return {sum, 32, -10};
  const bool is_wide = bits == 32;
  switch (unit) {
    case MatrixUnit::volta:
      return is_wide ? plain : Accumulator{sum, 4, 0};
    case MatrixUnit::hopper:
      return is_wide ? Accumulator{sum, 8, 2, Tf32::three} : Accumulator{sum, 16, 2};
    case MatrixUnit::tf32:
      if (is_wide) return {sum, 4, 0, Tf32::one};
      [[fallthrough]];
    default:
      return is_wide ? Accumulator{sum, 4, 1, Tf32::three} : Accumulator{sum, 8, 1};
  }
}

Contract read_contract(ContractReader& keys, DType operands) {
  Contract contract = attention_keys(keys, operands, read_matrix_unit(keys));
  contract.q_factor = keys.factor("q_factor");
  contract.backward_k_factor = keys.factor("backward_k_factor");
  keys.finish();
  return contract;
}

std::vector<SpecKey> attention_contract_keys() {
  std::vector<SpecKey> keys = shared_contract_keys();
  keys.push_back(
      {"q_factor", "number", "-",
       "the forward pass multiplies q by this number, in float32, and stores it in its element type "
       "before the first product: float32(scale) float32(log2(e)), say",
       "0.18"});
  keys.push_back({"backward_k_factor", "number", "-", "the same of k in the backward pass", "0.18"});
  return keys;
}

std::string contract_text(const Contract& contract, const ContractReader& keys) {
  const auto factor_text = [](const char* operand, const std::optional<double>& factor) {
    return factor ? std::string(", ") + operand + " times " + number_text(*factor, 6) + " stored first" : "";
  };
  return precisions_text(contract) + factor_text("q", contract.q_factor) +
         factor_text("backward: k", contract.backward_k_factor) + keys.origin();
}

MultiheadContract read_multihead_contract(ContractReader& keys, DType x, DType in_weight, DType out_weight) {
  const auto wider = [](DType a, DType b) { return format_of(a).bits >= format_of(b).bits ? a : b; };
  MultiheadContract contract{};
  contract.intermediate = read_dtype(keys, "intermediate_dtype", x);
  const DType sum = read_dtype(keys, "accumulate", wide_type(x));
  const MatrixUnit unit = read_matrix_unit(keys);
  contract.in_projection = accumulator(sum, wider(x, in_weight), unit);
  contract.out_projection = accumulator(sum, wider(contract.intermediate, out_weight), unit);
  contract.attention = attention_keys(keys, contract.intermediate, unit);
  keys.finish();
  return contract;
}

std::vector<SpecKey> multihead_contract_keys() {
  std::vector<SpecKey> keys = shared_contract_keys();
  keys.front().fallback = "intermediate_dtype";
  const SpecKey own[] = {
      {"intermediate_dtype", "element type", "that of in/x or in/query",
       "q, k, v and the output of the heads as they are stored between the products", "float8_e5m2"},
      {"accumulate", "element type", wide_fallback, "sums of products in the projections", "bfloat16"},
  };
  keys.insert(keys.begin(), std::begin(own), std::end(own));
  return keys;
}

std::string contract_text(const MultiheadContract& contract, const ContractReader& keys) {
  return "q, k, v, o " + std::string(format_of(contract.intermediate).name) + ", projections in " +
         accumulator_text(contract.in_projection) + ", " + precisions_text(contract.attention) +
         keys.origin();
}

DType read_compute_dtype(const Case& c, ContractReader& keys, DType operands) {
  const DType dtype = read_compute_dtype_among(c, keys, wide_type(operands));
  keys.finish();
  return dtype;
}

DType read_compute_dtype_among(const Case& c, ContractReader& keys, DType fallback) {
  const DType other_name = read_dtype(keys, "accumulate", fallback);
  DType dtype = read_dtype(keys, "compute_dtype", other_name);
  if (!keys.has("accumulate")) return dtype;
  if (!keys.has("compute_dtype")) dtype = other_name;  // whatever a preset says
  if (dtype != other_name) {
    throw InvalidCase(c.object("contract") + " attribute accumulate is " +
                      std::string(format_of(other_name).name) + ", compute_dtype is " +
                      std::string(format_of(dtype).name) +
                      "; they mean the same here, so that one is enough");
  }
  return dtype;
}

std::vector<SpecKey> compute_contract_keys() {
  return {
      {"compute_dtype", "element type", wide_fallback, "what every operation rounds to", "bfloat16"},
      {"accumulate", "element type", "-", "another name for compute_dtype"},
  };
}

std::string compute_dtype_text(DType dtype, const ContractReader& keys) {
  return "computed in " + std::string(format_of(dtype).name) + keys.origin();
}

}  // namespace attest
