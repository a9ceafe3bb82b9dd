// InvalidCase: the user's file or option is wrong.
#pragma once

#include <stdexcept>

namespace attest {

/// Its text is one line that names the object, what was found and what was expected.
/// Anything that is not the user's doing is a bug of ours and asserts instead.
class InvalidCase : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

}  // namespace attest
