// Stands in for trace_command.cpp where attest::tiled is not built.
#include "verify/program/program.hpp"
#include "verify/program/trace_command.hpp"

namespace attest {

int trace(const TraceOptions&) {
  throw UsageError("attest trace runs attest::tiled, which was not built: it needs an x86-64 machine");
}

}  // namespace attest
