// fisher_product for the runner.        buffers: logits, tangents → out
#include "cuda/fisher_product.cuh"

#include "kernels.h"

namespace vaal::testing {
namespace {

void fisher_product(const Call& call, void* const* buffer) {
  const Launch launch(call);
  FisherArguments<T> args{};
  args.p = static_cast<const T*>(buffer[0]);
  args.q = static_cast<const T*>(buffer[1]);
  args.out = static_cast<T*>(buffer[2]);
  args.rows = launch.rows;
  args.cols = static_cast<int>(launch.cols);
  args.whole_packs = whole_packs(launch.cols, sizeof(T), {args.p, args.q, args.out});
  launch_fisher(args, launch.plan, Stream{});
}

const Registration registration(named("fisher_product"), fisher_product);

}  // namespace
}  // namespace vaal::testing
