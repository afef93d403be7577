// The CUDA kernels on the CPU behind a C interface: what python_tests/test_cuda_emulation.py calls.
//
// Every function takes host pointers and a plan, runs the launches of the op and returns null, or
// the message of an error. Workspaces are filled with NaN before.
#include <cstdint>
#include <memory>
#include <string>

#include "cuda/kl_long_launch.cuh"
#include "cuda/perturb.cuh"
#include "cuda/posterior_summary.cuh"
#include "cuda/random_perturb.cuh"

using namespace vaal;

namespace {

std::string last_error;

struct Workspace {
  std::unique_ptr<unsigned char[]> bytes;
  explicit Workspace(int64_t size) : bytes(new unsigned char[size]) {
    std::memset(bytes.get(), 0xFF, size);
  }
};

template <class F>
const char* guarded(F&& run) {
  try {
    run();
    return nullptr;
  } catch (const std::exception& error) {
    last_error = error.what();
    return last_error.c_str();
  }
}

// 0 float32, 1 float64, 2 float16, 3 bfloat16.
template <class F>
void with_type(int dtype, F&& f) {
  switch (dtype) {
    case 0: return f(float{});
    case 1: return f(double{});
    case 2: return f(Half{});
    default: return f(BFloat16{});
  }
}

template <Op kOp, class T>
void run_kl(const KlArguments<T>& args, const LaunchPlan& plan) {
  Workspace workspace(kl_workspace_bytes(plan, args.rows, sizeof(T)));
  launch_kl<kOp>(args, plan, workspace.bytes.get(), Stream{});
}

}  // namespace

extern "C" {

void emulation_set_order(int order) { emulation::launch_order = static_cast<emulation::Order>(order); }

const char* emulation_plan(int op, int64_t rows, int64_t cols, int dtype_size, int smoothed,
                           const DeviceLimits* limits, LaunchPlan* plan) {
  return guarded([&] {
    *plan = launch_plan(static_cast<Op>(op), rows, cols, dtype_size, smoothed != 0, *limits);
  });
}

const char* emulation_kl(int op, int dtype, const void* p, const void* q, int64_t rows,
                         int64_t cols, double smoothing, int symmetric, void* value,
                         const void* grad_value, int64_t grad_value_stride, void* grad_p,
                         void* grad_q, const LaunchPlan* plan) {
  return guarded([&] {
    with_type(dtype, [&](auto type) {
      using T = decltype(type);
      using S = Scalar<T>;
      KlArguments<T> args{};
      args.p = static_cast<const T*>(p);
      args.q = static_cast<const T*>(q);
      args.rows = rows;
      args.cols = static_cast<int>(cols);
      args.symmetric = symmetric != 0;
      args.smoothed = smoothing > 0;
      args.direction = static_cast<Op>(op) == Op::kSymmetricKlDirection;
      args.keep = static_cast<S>(1 - smoothing);
      args.floor = static_cast<S>(smoothing / cols);
      args.value = static_cast<S*>(value);
      args.grad_value = static_cast<const S*>(grad_value);
      args.grad_value_stride = grad_value_stride;
      args.grad_p = static_cast<T*>(grad_p);
      args.grad_q = static_cast<T*>(grad_q);
      args.whole_packs = whole_packs(cols, sizeof(T), {p, q, grad_p, grad_q});
      switch (static_cast<Op>(op)) {
        case Op::kSymmetricKl: return run_kl<Op::kSymmetricKl>(args, *plan);
        case Op::kSymmetricKlBackward: return run_kl<Op::kSymmetricKlBackward>(args, *plan);
        default: return run_kl<Op::kSymmetricKlDirection>(args, *plan);
      }
    });
  });
}

const char* emulation_perturb(int dtype, const void* x, const void* direction, double radius,
                              int64_t rows, int64_t cols, void* out, void* norm,
                              const LaunchPlan* plan) {
  return guarded([&] {
    with_type(dtype, [&](auto type) {
      using T = decltype(type);
      using S = Scalar<T>;
      const PerturbArguments<T> args{static_cast<const T*>(x),
                                     static_cast<const T*>(direction),
                                     static_cast<T*>(out),
                                     static_cast<S*>(norm),
                                     rows,
                                     cols,
                                     static_cast<S>(radius),
                                     whole_packs(cols, sizeof(T), {x, direction, out})};
      Workspace workspace(perturb_workspace_bytes(*plan, rows));
      launch_perturb(args, *plan, workspace.bytes.get(), Stream{});
    });
  });
}

const char* emulation_random_perturb(int dtype, const void* x, double radius, int64_t seed,
                                     const int64_t* sample_index, int64_t rows, int64_t cols,
                                     void* out, const LaunchPlan* plan) {
  return guarded([&] {
    with_type(dtype, [&](auto type) {
      using T = decltype(type);
      const RandomPerturbArguments<T> args{static_cast<const T*>(x),
                                           sample_index,
                                           static_cast<T*>(out),
                                           rows,
                                           cols,
                                           static_cast<uint64_t>(seed),
                                           static_cast<Scalar<T>>(radius),
                                           whole_packs(cols, sizeof(T), {x, out})};
      Workspace workspace(random_perturb_workspace_bytes(*plan, rows));
      launch_random_perturb(args, *plan, workspace.bytes.get(), Stream{});
    });
  });
}

const char* emulation_posterior_summary(int dtype, const void* logits, int64_t rows, int64_t cols,
                                        int64_t* label, void* entropy, void* margin,
                                        const LaunchPlan* plan) {
  return guarded([&] {
    with_type(dtype, [&](auto type) {
      using T = decltype(type);
      using S = Scalar<T>;
      const SummaryArguments<T> args{static_cast<const T*>(logits),
                                     label,
                                     static_cast<S*>(entropy),
                                     static_cast<S*>(margin),
                                     rows,
                                     static_cast<int>(cols),
                                     whole_packs(cols, sizeof(T), {logits})};
      Workspace workspace(summary_workspace_bytes(*plan, rows));
      launch_summary(args, *plan, workspace.bytes.get(), Stream{});
    });
  });
}

}  // extern "C"
