// Tensors whose axes are in another order than the spec says: their shapes do not always tell.
#include <array>
#include <string>
#include <vector>

#include "core/invalid_case.hpp"
#include "verify/ops/attention/problem.hpp"

namespace attest {

std::vector<Decoy> AttentionProblem::in_other_layouts() const {
  constexpr std::array apart = {"bhsd", "bshd", "sbhd"};
  constexpr std::array merged = {"bsm", "sbm"};
  std::vector<Decoy> all;
  const bool is_part = !case_.row.empty() || !case_.key.empty();
  const Tensor* o = case_.output("o");
  if (is_part || !o) return all;
  Case other;
  other.file = case_.file, other.name = case_.name, other.op = case_.op;
  other.spec = case_.spec, other.contract = case_.contract, other.in = case_.in;
  other.in.erase("do");
  other.out["o"] = *o;
  const auto declared = case_.spec.find("layout");
  const Attribute own = declared == case_.spec.end() ? Attribute("bhsd") : declared->second;
  const auto try_layout = [&](const std::string& layout) {
    if (own == Attribute(layout)) return;
    other.spec["layout"] = layout;
    try {
      const AttentionProblem problem(other);
      for (Decoy& answer : problem.sampled_answers("layout = " + layout, problem.attention_.spec)) {
        answer.is_of_whole_call = true;
        all.push_back(std::move(answer));
      }
    } catch (const InvalidCase&) {
      // Nor do the shapes fit.
    }
  };
  if (o->shape.size() == 4)
    for (const char* layout : apart) try_layout(layout);
  if (o->shape.size() == 3 && own != Attribute("thd"))
    for (const char* layout : merged) try_layout(layout);
  return all;
}

}  // namespace attest
