// The list of operations.
#include <algorithm>

#include "core/invalid_case.hpp"
#include "verify/contract/presets.hpp"
#include "verify/op.hpp"
#include "verify/ops/ops.hpp"

namespace attest {
namespace {

std::string names_of(const std::vector<Port>& ports) {
  std::string text;
  for (const Port& port : ports) text += (text.empty() ? "" : ", ") + std::string(port.name);
  return text;
}

/// Why a tensor is not what the port takes, as the end of a message.
std::string expected_type(const Port& port, const Tensor& found, const std::vector<Port>& ports) {
  if (port.type == PortType::integer) return "an integer type is expected";
  if (port.type == PortType::boolean) {
    const bool takes_numbers = std::ranges::find(ports, "bias", &Port::name) != ports.end();
    return std::string("booleans (uint8 or an HDF5 enum) are expected") +
           (found.dtype && takes_numbers ? "; numbers to add to scores belong in in/bias" : "");
  }
  const std::string bits = found.type_name == "uint16"  ? "bfloat16"
                           : found.type_name == "uint8" ? "float8_e4m3fn or float8_e5m2"
                                                        : "";
  return "a floating-point type is expected" +
         (bits.empty() ? "" : ", or the attribute dtype = " + bits + " if these are its bits");
}

void check_group(const Case& c, const std::string& group, const std::map<std::string, Tensor>& tensors,
                 const std::vector<Port>& ports) {
  for (const auto& [name, tensor] : tensors) {
    const auto port = std::find_if(ports.begin(), ports.end(), [&](const Port& p) { return p.name == name; });
    const std::string object = c.object(group + "/" + name);
    if (port == ports.end()) {
      throw InvalidCase(object + " is not known to " + c.op + "; accepted: " + names_of(ports));
    }
    const bool is_integer = !tensor.dtype && tensor.type_name != "bool";
    const bool is_boolean = tensor.type_name == "bool" || tensor.type_name == "uint8";
    const bool fits = port->type == PortType::floating  ? tensor.dtype.has_value()
                      : port->type == PortType::integer ? is_integer
                                                        : is_boolean;
    if (!fits)
      throw InvalidCase(object + " holds " + tensor.type_name + "; " + expected_type(*port, tensor, ports));
  }
  for (const Port& port : ports) {
    if (port.required && !tensors.contains(std::string(port.name))) {
      throw InvalidCase(c.object(group + "/" + std::string(port.name)) + " is missing");
    }
  }
}

}  // namespace

std::span<const Op> all_ops() {
  static const std::vector<Op> ops = {
      attention_op(), softmax_op(),    gelu_op(),           silu_op(), sigmoid_op(),
      rms_norm_op(),  layer_norm_op(), layer_norm_qkv_op(), rope_op(), multihead_attention_op(),
  };
  return ops;
}

const Op& find_op(const Case& c) {
  std::string accepted;
  for (const Op& op : all_ops()) {
    if (op.name == c.op) return op;
    accepted += (accepted.empty() ? "" : ", ") + std::string(op.name);
  }
  throw InvalidCase(c.object("") + " attribute op is \"" + c.op + "\"; accepted: " + accepted);
}

std::vector<SpecKey> contract_keys_of(const Op& op) {
  std::vector<SpecKey> keys = op.contract;
  const auto presets = presets_that_set([&](std::string_view key) {
    return std::ranges::find(op.contract, key, &SpecKey::name) != op.contract.end();
  });
  if (!presets.empty())
    keys.push_back({"preset", names_of(presets), "-", "a name for what the case does not set itself"});
  return keys;
}

void check_ports(const Op& op, const Case& c) {
  check_group(c, "in", c.in, op.inputs);
  check_group(c, "out", c.out, op.outputs);
  if (c.out.empty()) {
    throw InvalidCase(c.object("out") +
                      " is missing; the datasets that the kernel wrote are expected there: run it first");
  }
}

}  // namespace attest
