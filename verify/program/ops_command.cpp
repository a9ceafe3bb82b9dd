// Lists the operations, or prints their pages.
#include "verify/program/ops_command.hpp"

#include <unistd.h>

#include <algorithm>

#include "verify/describe.hpp"
#include "verify/program/program.hpp"
#include "verify/text.hpp"

namespace attest {

std::string names_of_ops() {
  std::string all;
  for (const Op& op : all_ops()) all += (all.empty() ? "" : ", ") + std::string(op.name);
  return all;
}

const Op& op_of(const std::string& name) {
  for (const Op& op : all_ops()) {
    if (op.name == name) return op;
  }
  throw UsageError("there is no operation '" + name + "'; there are: " + names_of_ops());
}

int show_ops(const std::vector<std::string>& names) {
  std::string text;
  for (const std::string& name : names) text += (text.empty() ? "" : "\n") + page_of(op_of(name));
  Output output;
  output.print(names.empty() ? list_of_ops(style_of(STDOUT_FILENO).width) : text);
  return output.status(0);
}

}  // namespace attest
