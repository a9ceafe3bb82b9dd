// Which contracts a dump satisfies: a walk through those near its own.
#pragma once

#include <functional>

#include "verify/findings.hpp"
#include "verify/op.hpp"

namespace attest {

/// Judges the case under a contract that names every key. May throw InvalidCase: no such contract.
using ContractTrial = std::function<CaseFindings(const Attributes& contract)>;

/// own: the case under its own contract. Keys are those of the op's record that have a `weakest` value.
///   A case that fails: each key by itself is weakened, step by step, until the case no longer fails. If that
/// helps nowhere, all keys are weakened together as far as wrong answers do not pass, and then tightened
/// again one after another, from the last key of the record to the first: what stays is one of the
/// combinations in which no key can be stricter.
///   Any other: each key by itself is made stricter as long as the verdict gets no worse, up to float32, or
///   to
/// the widest type that the contract has. What changes no figure is left out.
/// At most `most_fitted` contracts are judged.
ContractFit fit_contract(const Op& op, const CaseFindings& own, const ContractTrial& trial);

inline constexpr Index most_fitted = 30;

}  // namespace attest
