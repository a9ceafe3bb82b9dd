// The subcommand `inputs`: cases for a device to run.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "verify/inputs/request.hpp"

namespace attest {

struct InputsOptions {
  std::string op, suite, file;
  std::vector<std::string> recipes, globs;
  RequestText text;
  bool lists = false, replaces = false, describes = false;
};

/// Lists recipes, or writes the cases of a file. Returns an exit status: 0, or 2 for what cannot be written.
int make_inputs(const InputsOptions& options);

}  // namespace attest
