// The choice of the instruction set, made once for the process.

#include <torch/headeronly/util/Exception.h>

#include <cstdlib>
#include <cstring>

#include "cpu/ops.h"

namespace vaal {
namespace {

// The widest set that this processor runs; VAAL_CPU_ISA=portable|avx2|avx512 asks for a narrower
// one (for tests and measurements).
const Kernels& choose_kernels() {
  const char* asked = std::getenv("VAAL_CPU_ISA");
  const auto allowed = [&](const char* isa) { return !asked || std::strcmp(asked, isa) == 0; };
#if defined(VAAL_X86)
  const bool has_avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
  const bool has_avx512 = has_avx2 && __builtin_cpu_supports("avx512f") &&
                          __builtin_cpu_supports("avx512dq") &&
                          __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl");
  if (has_avx512 && allowed("avx512")) return avx512::kernels;
  if (has_avx2 && allowed("avx2")) return avx2::kernels;
#endif
  STD_TORCH_CHECK(!asked || allowed("portable"), "VAAL_CPU_ISA=", asked,
                  " is not an instruction set of this processor and build");
  return portable::kernels;
}

}  // namespace

const Kernels& kernels() {
  static const Kernels& chosen = choose_kernels();
  return chosen;
}

}  // namespace vaal
