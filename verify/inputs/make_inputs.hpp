// What makes the inputs of each operation: a field of its record.
#pragma once

#include "verify/inputs/generated.hpp"

namespace attest {

OpInputs attention_inputs();
OpInputs softmax_inputs();
/// gelu, silu and sigmoid, by name.
OpInputs activation_inputs(std::string_view op);
/// rms_norm and layer_norm.
OpInputs norm_inputs(bool is_centred);
OpInputs rope_inputs();
OpInputs layer_norm_qkv_inputs();
OpInputs multihead_attention_inputs();

/// The value of a spec key as the request has it, or the fallback, which then becomes part of the request.
double number_of(InputRequest& request, const std::string& key, double fallback);
Index integer_of(InputRequest& request, const std::string& key, Index fallback);
std::string text_of(InputRequest& request, const std::string& key, const std::string& fallback);

/// With name, op, attributes, and what is known of its making in `about`.
GeneratedCase case_for(const InputRequest& request, const std::string& op);

}  // namespace attest
