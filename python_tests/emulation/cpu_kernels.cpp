// The CPU kernels of csrc/cpu/kernels, of every instruction set, for the runner.
//
// integers: the instruction set (0 portable, 1 avx2, 2 avx512), the storage type, then as listed
#include "cpu/kernels.h"

#include <stdexcept>

#include "runner.h"

namespace vaal {
namespace testing {
namespace {

bool supported(int64_t set) {
#if defined(VAAL_X86)
  if (set == 1) return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
  if (set == 2)
    return supported(1) && __builtin_cpu_supports("avx512f") &&
           __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512bw") &&
           __builtin_cpu_supports("avx512vl");
#endif
  return set == 0;
}

const Kernels& kernels(const Call& call) {
  if (!supported(call.integer[0])) throw std::runtime_error("not an instruction set of this CPU");
#if defined(VAAL_X86)
  if (call.integer[0] == 1) return avx2::kernels;
  if (call.integer[0] == 2) return avx512::kernels;
#endif
  return portable::kernels;
}

Storage storage(const Call& call) { return static_cast<Storage>(call.integer[1]); }

// As if there were no rows but those that are worked on.
int64_t rows(const Call& call) { return call.integer[3] - call.integer[2]; }

// → whether this CPU has the instruction set
const Registration has("cpu/has", [](const Call& call, void* const* buffer) {
  *static_cast<int64_t*>(buffer[0]) = supported(call.integer[0]);
});

// first row, past the last row, cols, symmetric, direction, stride of grad_value; smoothing
// p, q, grad_value → value, grad_p, grad_q
const Registration kl("cpu/symmetric_kl", [](const Call& call, void* const* buffer) {
  const int64_t* const own = call.integer + 2;
  KLArguments args{};
  args.p = buffer[0];
  args.q = buffer[1];
  args.grad_value = buffer[2];
  args.value = buffer[3];
  args.grad_p = buffer[4];
  args.grad_q = buffer[5];
  args.rows = rows(call);
  args.cols = own[2];
  args.symmetric = own[3] != 0;
  args.direction = own[4] != 0;
  args.grad_value_stride = own[5];
  args.smoothing = call.number[0];
  args.storage = storage(call);
  kernels(call).symmetric_kl(args, own[0], own[1]);
});

// first row, past the last row, cols        logits → label, entropy, margin
const Registration summary("cpu/posterior_summary", [](const Call& call, void* const* buffer) {
  const SummaryArguments args{buffer[0],    static_cast<int64_t*>(buffer[1]),
                              buffer[2],    buffer[3],
                              rows(call),   call.integer[4],
                              storage(call)};
  kernels(call).posterior_summary(args, call.integer[2], call.integer[3]);
});

// first row, past the last row, cols        logits, tangents → out
const Registration fisher("cpu/fisher_product", [](const Call& call, void* const* buffer) {
  const FisherArguments args{buffer[0],  buffer[1],       buffer[2],
                             rows(call), call.integer[4], storage(call)};
  kernels(call).fisher_product(args, call.integer[2], call.integer[3]);
});

// first row, past the last row, cols        logits → out, curvature
const Registration top_direction("cpu/fisher_direction", [](const Call& call, void* const* buffer) {
  const DirectionArguments args{buffer[0],  buffer[1],       buffer[2],
                                rows(call), call.integer[4], storage(call)};
  kernels(call).fisher_direction(args, call.integer[2], call.integer[3]);
});

// count        direction → scale and sum
const Registration norm("cpu/norm_part", [](const Call& call, void* const* buffer) {
  *static_cast<NormPart*>(buffer[1]) = kernels(call).norm_part(buffer[0], call.integer[2],
                                                               storage(call));
});

// count; factor        x, direction → out
const Registration add("cpu/add_scaled", [](const Call& call, void* const* buffer) {
  kernels(call).add_scaled(buffer[0], buffer[1], buffer[2], call.integer[2], {0, call.number[0]},
                           storage(call));
});

// count, exponent; factor        x → out
const Registration scale("cpu/scaled", [](const Call& call, void* const* buffer) {
  kernels(call).scaled(buffer[0], buffer[1], call.integer[2], static_cast<int>(call.integer[3]),
                       call.number[0], storage(call));
});

// count; factor        x, normals → out
const Registration add_normals("cpu/add_scaled_normals", [](const Call& call, void* const* buffer) {
  kernels(call).add_scaled_normals(buffer[0], buffer[1], buffer[2], call.integer[2],
                                   {0, call.number[0]}, storage(call));
});

// seed, sample, first element, count        → normals
const Registration normals("cpu/normals", [](const Call& call, void* const* buffer) {
  const int64_t* const own = call.integer + 2;
  kernels(call).normals(
      {static_cast<uint64_t>(own[0]), static_cast<uint64_t>(own[1]), own[2], own[3], storage(call)},
      buffer[0]);
});

// seed, samples, count                         sample numbers → normals
const Registration short_normals("cpu/short_normals", [](const Call& call, void* const* buffer) {
  const int64_t* const own = call.integer + 2;
  kernels(call).short_normals({static_cast<uint64_t>(own[0]),
                               static_cast<const int64_t*>(buffer[0]), 1, own[1], own[2],
                               storage(call)},
                              buffer[1]);
});

}  // namespace
}  // namespace testing
}  // namespace vaal
