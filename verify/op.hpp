// One record per operation: what it reads and writes, what it means, and how its results are judged.
#pragma once

#include <functional>
#include <memory>
#include <span>
#include <stdexcept>
#include <string>
#include <string_view>
#include <vector>

#include "verify/case.hpp"
#include "verify/contract/reader.hpp"
#include "verify/expected.hpp"
#include "verify/findings.hpp"
#include "verify/inputs/generated.hpp"

namespace attest {

/// A check of ours failed: exact values of two engines disagree. Never the user's fault.
class InternalError : public std::logic_error {
 public:
  using std::logic_error::logic_error;
};

enum class PortType { floating, integer, boolean };

struct Port {
  std::string_view name;
  std::string_view extents;  // symbols, in the default layout
  PortType type;
  bool required;
  std::string_view meaning;
};

/// A key of `spec` or `contract`. values: the accepted ones, or "number", "integer", "element type".
/// fallback: what stands in for the key where it is absent; "": it is required; "-": nothing does.
/// Values of a contract key that is a choice stand from the strictest to the weakest. weakest: of a contract
/// key, how far `--fit` goes; "": it leaves the key as it is.
struct SpecKey {
  std::string_view name;
  std::string values;
  std::string_view fallback, meaning, weakest = "";
};

/// A wrong answer that must not pass, at some elements of one output.
struct Decoy {
  std::string name;
  std::string output;
  std::vector<Index> at;          // flat indices
  std::vector<double> value;      // what the wrong answer would be there, before rounding
  bool is_subtle = false;         // hidden by most inputs: a case that cannot tell it may pass all the same
  bool is_of_whole_call = false;  // as a diagnosis it has to agree with right elements, too
};

/// Called now and then, from one thread, with the share of the work that is done.
using ProgressFunction = std::function<void(double)>;

/// A case whose tensors and options were found to fit together.
class Problem {
 public:
  virtual ~Problem() = default;

  /// The contract's keys, as read.
  const ContractReader& contract_keys() const { return contract_keys_; }

  /// The contract that the bounds are derived from, as one line for reports.
  virtual std::string contract() const = 0;

  /// Exact values and bounds of every output that the case holds, in the order of the op's ports.
  virtual std::vector<Expected> expect(const ProgressFunction& progress) = 0;

  /// Recomputes a sample of the values with ref and throws InternalError where both disagree by more than
  /// their certified errors. Call after expect().
  virtual void recheck(std::span<const Expected> expected) const = 0;

  /// What else a reader of the report should know of this case, a sentence each. Call after expect().
  virtual std::vector<std::string> remarks() const { return {}; }

  /// Wrong answers for the outputs of the case. Call after expect().
  virtual std::vector<Decoy> decoys(std::span<const Expected> expected) const = 0;

  /// Wrong answers that would explain a failure, beside the decoys. Call after expect().
  virtual std::vector<Decoy> alternatives(std::span<const Expected>) const { return {}; }

  /// Causes of a failure that were fitted to the errors, the likeliest first. Call after expect().
  virtual std::vector<DiagnosisEntry> explanations(std::span<const Expected>) const { return {}; }

 protected:
  explicit Problem(const Case& c) : contract_keys_(c) {}

  ContractReader contract_keys_;
};

/// Gradients of some keys, which are sums over all rows. A case has a block of rows of one query head.
class KeyProblem {
 public:
  virtual ~KeyProblem() = default;

  /// Which rows of a block cannot take part, as their own outputs cannot be right: by index. Judge these.
  virtual std::vector<Index> unusable_rows(const Case& block) const = 0;

  /// Takes a block that has no such rows; blocks come in order.
  virtual void add(const Case& block) = 0;
  /// After the last block of a query head.
  virtual void finish_head() = 0;

  /// As of Problem. Call after the last head, once.
  virtual std::vector<Expected> expect() = 0;
  virtual void recheck(std::span<const Expected> expected) const = 0;
  /// likely: those that a failure may be, and not those that must not pass.
  virtual std::vector<Decoy> wrong_answers(bool likely) const = 0;
};

struct Op {
  std::string_view name, summary;
  std::vector<Port> inputs, outputs;
  std::vector<SpecKey> spec;
  std::vector<SpecKey> contract;  // the likeliest to be broken first: verify/contract/fit.hpp
  /// Throws InvalidCase where the case is malformed. The case must outlive the problem.
  std::unique_ptr<Problem> (*read)(const Case& c);
  OpInputs generated = {};
  bool judges_rows = false;  // a case may hold some of its rows only: Case::row
  /// Of a block of a case that may hold some of its keys only, Case::key; the first block will do.
  std::unique_ptr<KeyProblem> (*read_keys)(const Case& c) = nullptr;
};

/// All operations, in the order of the documentation.
std::span<const Op> all_ops();

/// Throws InvalidCase with the names of all operations if there is none of that name.
const Op& find_op(const Case& c);

/// The op's contract keys, and `preset` if there is one that sets them.
std::vector<SpecKey> contract_keys_of(const Op& op);

/// Every dataset is a port of the op and has its type, no required input is missing, and there is an output.
/// Throws InvalidCase.
void check_ports(const Op& op, const Case& c);

}  // namespace attest
