// Contracts of hardware and libraries by name: a table. A row says what is known, with its source; where
// nothing is, it has the weakest value that is sound, and says so.
#include "verify/contract/presets.hpp"

#include <algorithm>

namespace attest {

std::span<const ContractPreset> contract_presets() {
  static const std::vector<ContractPreset> presets = {
      {"nvidia_volta",
       {{"matrix_unit", "volta"}},
       "tensor cores that add 4 products to the sum, cut off at the last place of the largest",
       "Fasi, Higham, Mikaitis and Pranesh, PeerJ CS 7:e330 (2021); Xie et al., MMA-Sim, arXiv:2511.10909"},
      {"nvidia_turing",
       {{"matrix_unit", "ampere"}},
       "8 products at a time, cut off 1 bit below the last place",
       "MMA-Sim, arXiv:2511.10909"},
      {"nvidia_ampere",
       {{"matrix_unit", "ampere"}},
       "8 products at a time, cut off 1 bit below the last place",
       "PeerJ CS 7:e330 (2021); MMA-Sim, arXiv:2511.10909"},
      {"nvidia_ada",
       {{"matrix_unit", "ampere"}},
       "as Ampere for operands of 16 bits",
       "MMA-Sim, arXiv:2511.10909"},
      {"nvidia_hopper",
       {{"matrix_unit", "hopper"}},
       "16 products at a time, cut off 2 bits below the last place",
       "data/device/matrix_units, a probe of an H200; MMA-Sim, arXiv:2511.10909"},
      {"nvidia_blackwell",
       {{"matrix_unit", "hopper"}},
       "as Hopper for operands of 16 bits",
       "MMA-Sim, arXiv:2511.10909"},
      {"ascend_cube",
       {{"qk_accumulate", "float32"}, {"pv_accumulate", "float32"}, {"matrix_unit", "volta"}},
       "products of 16 bits summed in float32. How the Cube unit rounds is not published: the bounds of "
       "volta "
       "hold for any unit whose additions are off by less than one unit in the last place each, in any order",
       "float32 sums: Ascend C API reference, Mmad; rounding: none, so taken at its widest"},
      {"flash_attention_2",
       {{"softmax_dtype", "float32"},
        {"qk_accumulate", "float32"},
        {"pv_accumulate", "float32"},
        {"row_sum", "computed"},
        {"weights", "relative"},
        {"tanh_error", 0x1p-11}},
       "P in the element type of q, all else in float32; tanh.approx for a softcap",
       "flash_fwd_kernel.h and utils.h of Dao-AILab/flash-attention; PTX ISA, tanh; data/device"},
      {"flash_attention_3",
       {{"softmax_dtype", "float32"},
        {"qk_accumulate", "float32"},
        {"pv_accumulate", "float32"},
        {"row_sum", "computed"},
        {"weights", "relative"},
        {"tanh_error", 0x1p-16},
        {"matrix_unit", "hopper"}},
       "the same on Hopper's tensor cores",
       "Shah et al., arXiv:2407.08608; tanh: data/device/functions, every float on an H200"},
      {"flash_attention_3_fp8",
       {{"p_dtype", "float8_e4m3fn"},
        {"softmax_dtype", "float32"},
        {"qk_accumulate", "float32"},
        {"pv_accumulate", "float32"},
        {"row_sum", "computed"},
        {"weights", "relative_256"},
        {"tanh_error", 0x1p-16},
        {"matrix_unit", "hopper"}},
       "P in float8_e4m3fn; factors of q, k and v belong into the scale and into v",
       "Shah et al., arXiv:2407.08608; Max_offset in hopper/softmax.h of Dao-AILab/flash-attention"},
      {"pytorch_math",
       {{"p_dtype", "float32"},
        {"softmax_dtype", "float32"},
        {"qk_accumulate", "float32"},
        {"pv_accumulate", "float32"},
        {"row_sum", "computed"},
        {"matrix_unit", "none"}},
       "inputs of up to 32 bits, converted to float32 first; without TF32, and without "
       "allow_fp16_bf16_reduction_math_sdp",
       "_scaled_dot_product_attention_math in attention.cpp of PyTorch; older releases do not convert"},
      {"eager_float16",
       {{"p_dtype", "float16"},
        {"scores_dtype", "float16"},
        {"softmax_dtype", "float32"},
        {"qk_accumulate", "float32"},
        {"pv_accumulate", "float32"},
        {"row_sum", "computed"}},
       "attention written as separate operations on float16, of which only the softmax works in float32",
       "eager_attention_forward in modeling_llama.py and others of transformers"},
      {"eager_bfloat16",
       {{"p_dtype", "bfloat16"},
        {"scores_dtype", "bfloat16"},
        {"softmax_dtype", "float32"},
        {"qk_accumulate", "float32"},
        {"pv_accumulate", "float32"},
        {"row_sum", "computed"}},
       "the same on bfloat16",
       "as eager_float16"},
      {"pytorch_efficient",
       {{"softmax_dtype", "float32"},
        {"qk_accumulate", "float32"},
        {"pv_accumulate", "float32"},
        {"row_sum", "computed"}},
       "the memory-efficient kernel, for inputs of 16 bits: P in their type, all else in float32",
       "mem_eff_attention/kernel_forward.h of PyTorch; data/device"},
      {"cudnn",
       {{"softmax_dtype", "float32"},
        {"qk_accumulate", "float32"},
        {"pv_accumulate", "float32"},
        {"row_sum", "computed"}},
       "cuDNN's fused attention, for inputs of 16 bits: P in their type, all else in float32",
       "data/device: so its elements are predicted to the last bit (docs/device_kernels.md)"},
      {"cpu_float32",
       {{"compute_dtype", "float32"},
        {"intermediate_dtype", "float32"},
        {"accumulate", "float32"},
        {"p_dtype", "float32"},
        {"softmax_dtype", "float32"},
        {"qk_accumulate", "float32"},
        {"pv_accumulate", "float32"},
        {"row_sum", "computed"},
        {"matrix_unit", "none"}},
       "every operation in float32, rounded to nearest; nothing is stored in less",
       "IEEE 754; exp and log of glibc: its manual, Errors in Math Functions"},
      {"cpu_float64",
       {{"compute_dtype", "float64"},
        {"intermediate_dtype", "float64"},
        {"accumulate", "float64"},
        {"p_dtype", "float64"},
        {"softmax_dtype", "float64"},
        {"qk_accumulate", "float64"},
        {"pv_accumulate", "float64"},
        {"row_sum", "computed"},
        {"matrix_unit", "none"}},
       "the same in float64",
       "as cpu_float32"},
  };
  return presets;
}

std::vector<ContractPreset> presets_that_set(const std::function<bool(std::string_view key)>& is_key) {
  std::vector<ContractPreset> all;
  for (const ContractPreset& preset : contract_presets()) {
    if (std::ranges::any_of(preset.fields, [&](const auto& field) { return is_key(field.first); }))
      all.push_back(preset);
  }
  return all;
}

std::string names_of(const std::vector<ContractPreset>& presets) {
  std::string names;
  for (const ContractPreset& preset : presets)
    names += (names.empty() ? "" : ", ") + std::string(preset.name);
  return names;
}

}  // namespace attest
