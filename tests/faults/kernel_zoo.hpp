// A zoo whose faults are changes of one emulated kernel.
#pragma once

#include <functional>
#include <string>
#include <utility>
#include <vector>

#include "tests/faults/recipes.hpp"

namespace attest::faults {

/// Contexts one after another, each with its faults.
template <class Kernel>
class KernelZoo {
 public:
  using Dump = std::function<Case(const Case& inputs, DType element, const Kernel& kernel)>;
  using Honest = std::function<Kernel(DType element)>;

  KernelZoo(
      const std::string& op, Dump dump, Honest honest = [](DType) { return Kernel{}; })
      : dump_(std::move(dump)), honest_(std::move(honest)), zoo_{op, {}, {}} {}

  /// What is added from here on belongs to this context.
  void context(Context context) {
    context.honest = [dump = dump_, honest = honest_](const Case& inputs, DType element) {
      return dump(inputs, element, honest(element));
    };
    zoo_.contexts.push_back(std::move(context));
  }
  void add(const std::string& name, std::function<void(Kernel& kernel, DType element)> change,
           std::vector<DType> elements = {}) {
    zoo_.faults.push_back(
        {name, "", zoo_.contexts.size() - 1,
         [dump = dump_, honest = honest_, change = std::move(change)](const Case& inputs, DType element) {
           Kernel kernel = honest(element);
           change(kernel, element);
           return dump(inputs, element, kernel);
         },
         std::move(elements)});
  }
  Zoo zoo() const { return zoo_; }

 private:
  Dump dump_;
  Honest honest_;
  Zoo zoo_;
};

}  // namespace attest::faults
