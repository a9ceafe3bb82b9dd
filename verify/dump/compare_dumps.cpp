// Holds cases of two dumps against each other: what was computed must be the same, what came out is compared.
#include "verify/dump/compare_dumps.hpp"

#include <algorithm>
#include <map>
#include <set>

#include "core/invalid_case.hpp"
#include "verify/axes/layout.hpp"
#include "verify/dump/difference.hpp"
#include "verify/keys.hpp"
#include "verify/op.hpp"

namespace attest {
namespace {

constexpr Index longest_value = 40;  // of an attribute, in messages

struct AttributeText {
  std::string operator()(const std::string& value) const {
    return '"' + shortened(printable(value), longest_value) + '"';
  }
  std::string operator()(double value) const { return exact_text(value); }
  std::string operator()(std::int64_t value) const { return std::to_string(value); }
  std::string operator()(bool value) const { return value ? "true" : "false"; }
};

std::string text_of(const Attribute& value) {
  return std::visit(AttributeText{}, value);
}

/// Numbers are what they are worth, integer or not.
bool is_same(const Attribute& a, const Attribute& b) {
  const auto* integer_a = std::get_if<std::int64_t>(&a);
  const auto* integer_b = std::get_if<std::int64_t>(&b);
  const auto* number_a = std::get_if<double>(&a);
  const auto* number_b = std::get_if<double>(&b);
  if (integer_a && number_b) return static_cast<double>(*integer_a) == *number_b;
  if (number_a && integer_b) return *number_a == static_cast<double>(*integer_b);
  return a == b;
}

/// Whether the value is what the key stands for where it is absent.
bool is_fallback(const std::vector<SpecKey>& known, const std::string& key, const Attribute& value) {
  const auto* text = std::get_if<std::string>(&value);
  const std::string shown = text ? *text : text_of(value);
  return std::ranges::any_of(known, [&](const SpecKey& k) { return k.name == key && k.fallback == shown; });
}

/// "scale (0.25 and 0.125), softcap (only in b.h5: /x: 30)"; "" if nothing differs. `known` are the keys that
/// have fallbacks.
std::string differing_keys(const Attributes& a, const Attributes& b, const Case& case_a, const Case& case_b,
                           const std::vector<SpecKey>& known) {
  std::set<std::string> keys;
  for (const auto* group : {&a, &b})
    for (const auto& [key, value] : *group) keys.insert(key);
  std::string text;
  for (const std::string& key : keys) {
    const auto in_a = a.find(key), in_b = b.find(key);
    std::string values;
    if (in_a == a.end() || in_b == b.end()) {
      const Attribute& value = in_a == a.end() ? in_b->second : in_a->second;
      if (is_fallback(known, key, value)) continue;
      values = "only in " + (in_a == a.end() ? case_b : case_a).object("") + ": " + text_of(value);
    } else if (is_same(in_a->second, in_b->second)) {
      continue;
    } else {
      values = text_of(in_a->second) + " and " + text_of(in_b->second);
    }
    text += (text.empty() ? "" : ", ") + key + " (" + values + ")";
  }
  return text;
}

const Op& checked_op(const Case& c) {
  const Op& op = find_op(c);
  check_ports(op, c);
  return op;
}

void check_batch_axis(const Case& a) {
  KeyReader spec(a, "spec", a.spec);
  if (read_layout(spec) != Layout::thd) return;
  throw InvalidCase(a.object("spec") +
                    " attribute layout is \"thd\", which packs the sequences of a batch; to be compared with "
                    "several cases it must be bhsd, bshd, sbhd, bsm or sbm");
}

/// What differs in `spec`, `contract` or `about`, a line per part.
std::vector<std::string> differing_attributes(const std::string& group, Attributes Case::*attributes,
                                              const Case& a, const std::vector<Case>& parts,
                                              const std::vector<SpecKey>& known = {}) {
  std::vector<std::string> lines;
  for (const Case& part : parts) {
    const std::string keys = differing_keys(a.*attributes, part.*attributes, a, part, known);
    if (keys.empty()) continue;
    const std::string of_part = parts.size() > 1 ? " from that of " + part.name : "";
    lines.push_back(group + " differs" + of_part + " in " + keys);
  }
  return lines;
}

using Tensors = std::map<std::string, Tensor>;

/// The tensors of one group, paired by name.
class TensorPairs {
 public:
  /// Of `a`, which is read, and the headers of the parts, in the order of the ports. `axes_of` takes a name.
  template <class AxesOf>
  TensorPairs(const Case& a, const std::vector<Case>& parts, const std::string& group,
              const std::vector<Port>& ports, Tensors Case::*tensors, AxesOf axes_of)
      : tensors_(tensors) {
    for (const Port& port : ports) {
      const std::string name(port.name);
      std::vector<const Case*> without, with;
      std::vector<const Tensor*> counterparts;
      const auto sort_in = [&](const Case& c) {
        ((c.*tensors).contains(name) ? with : without).push_back(&c);
      };
      sort_in(a);
      std::ranges::for_each(parts, sort_in);
      if (with.empty()) continue;
      if (!without.empty()) {
        unpaired.push_back(with.front()->object(group + "/" + name) + " has no counterpart in " +
                           without.front()->object(""));
        continue;
      }
      counterparts.reserve(parts.size());
      for (const Case& part : parts) counterparts.push_back(&(part.*tensors).at(name));
      collectors.emplace_back(name, (a.*tensors).at(name), axes_of(name), counterparts);
    }
  }

  void add(const Case& a, const Case& part, std::size_t index) {
    for (DifferenceCollector& collector : collectors)
      collector.add((a.*tensors_).at(collector.name()), (part.*tensors_).at(collector.name()), index);
  }

  std::vector<DifferenceCollector> collectors;
  std::vector<std::string> unpaired;  // in words

 private:
  Tensors Case::*tensors_;
};

std::string input_reason(const TensorDifference& d) {
  if (d.at.empty()) return "in/" + d.name + " differs: " + d.where;
  return "in/" + d.name + " differs: " + counts_text(d) + "; " + first_text(d);
}

void append(std::vector<std::string>& all, const std::vector<std::string>& more) {
  all.insert(all.end(), more.begin(), more.end());
}

}  // namespace

CaseDifference compare_cases(const Dump& dump_a, const std::string& name_a, const Dump& dump_b,
                             std::span<const std::string> names_b) {
  CaseDifference found;
  found.name = name_a;
  const Case a = dump_a.read(name_a);
  std::vector<Case> parts;
  for (const std::string& name : names_b) parts.push_back(dump_b.read(name, Dump::Contents::headers));
  const Op& op = checked_op(a);
  if (parts.size() > 1) check_batch_axis(a);
  for (const Case& part : parts) {
    checked_op(part);
    if (part.op != op.name) found.reasons.push_back("op differs: " + a.op + " and " + part.op);
  }
  if (names_b.size() != 1 || names_b.front() != name_a) {
    std::string list;
    for (const std::string& name : names_b) list += (list.empty() ? "" : ", ") + name;
    found.notes.push_back("against " + list + (names_b.size() > 1 ? ", joined along the batch" : ""));
  }
  append(found.notes, differing_attributes("contract", &Case::contract, a, parts));
  append(found.notes, differing_attributes("about", &Case::about, a, parts));
  found.verdict = Verdict::inconclusive;
  if (!found.reasons.empty()) return found;  // tensors of different operations have nothing in common

  append(found.reasons, differing_attributes("spec", &Case::spec, a, parts, op.spec));
  TensorPairs in(a, parts, "in", op.inputs, &Case::in,
                 [&](const std::string& name) { return input_axes(op, a, name); });
  TensorPairs out(a, parts, "out", op.outputs, &Case::out,
                  [&](const std::string& name) { return output_axes(op, a, name); });
  append(found.reasons, in.unpaired);
  append(found.notes, out.unpaired);
  std::erase_if(out.collectors, [&](const DifferenceCollector& output) {
    if (output.is_shared())
      found.notes.push_back("out/" + output.name() + " is not divided along the batch: not compared");
    return output.is_shared();
  });
  for (std::size_t index = 0; index < parts.size(); ++index) {
    const Case part = dump_b.read(names_b[index]);
    in.add(a, part, index);
    out.add(a, part, index);
  }

  for (const DifferenceCollector& input : in.collectors) {
    const TensorDifference d = input.result();
    if (d.different > 0) found.reasons.push_back(input_reason(d));
  }
  if (out.collectors.empty()) found.reasons.push_back("no output was compared");
  Verdict outputs = Verdict::pass;
  for (const DifferenceCollector& output : out.collectors) {
    found.outputs.push_back(output.result());
    outputs = std::max(outputs, found.outputs.back().verdict());
    if (const Index count = found.outputs.back().both_nan; count > 0)
      found.notes.push_back("out/" + output.name() + " is NaN in both at " + std::to_string(count) +
                            (count == 1 ? " element" : " elements") + "; NaNs count as equal");
  }
  found.verdict = found.reasons.empty() ? outputs : Verdict::inconclusive;
  return found;
}

}  // namespace attest
