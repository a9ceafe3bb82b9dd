// dk and dv of some keys of an attention case.
#pragma once

#include <memory>

#include "verify/op.hpp"

namespace attest {

/// Op::read_keys of attention. dv is judged from the dumped lse and dk from the dumped lse and o: the case
/// and its blocks have to hold these.
std::unique_ptr<KeyProblem> attention_keys(const Case& c);

}  // namespace attest
