// Kernels that err at one stage of their arithmetic.
#include "verify/ops/stages.hpp"

namespace attest {

std::vector<DType> narrow_formats(DType compute) {
  std::vector<DType> all;
  for (const DType dtype : {DType::bfloat16, DType::float16})
    if (format_of(dtype).precision < format_of(compute).precision) all.push_back(dtype);
  return all;
}

std::string in_format(DType dtype) {
  return " in " + std::string(format_of(dtype).name);
}

}  // namespace attest
