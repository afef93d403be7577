// What the files beside this one share, each of which hands one family of kernels, for the storage
// type VAAL_TYPE, to the runner.
#pragma once

#include <cstring>
#include <memory>

#include "cuda/launch_plan.h"
#include "cuda/storage.cuh"
#include "runner.h"

#define VAAL_STRING_(x) #x
#define VAAL_STRING(x) VAAL_STRING_(x)

namespace vaal::testing {
namespace {  // of one file: what VAAL_TYPE is differs

using T = VAAL_TYPE;
using S = Scalar<T>;

// "perturb/Half", say. The call's first integers are: the order of the threads, rows, cols, the
// ten fields of the plan; then what the kernel itself needs.
std::string named(const char* family) { return std::string(family) + "/" + VAAL_STRING(VAAL_TYPE); }

}  // namespace

constexpr int kFirstOwnInteger = 13;

struct Launch {
  int64_t rows, cols;
  LaunchPlan plan;

  explicit Launch(const Call& call) : rows(call.integer[1]), cols(call.integer[2]) {
    emulation::launch_order = static_cast<emulation::Order>(call.integer[0]);
    const int64_t* const field = call.integer + 3;
    plan.path = static_cast<Path>(field[0]);
    plan.threads_per_row = static_cast<int>(field[1]);
    plan.rows_per_block = static_cast<int>(field[2]);
    plan.block_threads = static_cast<int>(field[3]);
    plan.items_per_thread = static_cast<int>(field[4]);
    plan.vector_width = static_cast<int>(field[5]);
    plan.blocks = field[6];
    plan.splits = static_cast<int>(field[7]);
    plan.cached_packs = static_cast<int>(field[8]);
    plan.shared_bytes = static_cast<int>(field[9]);
  }
};

// The split paths' scratch memory, exactly as large as asked for. NaN until it is written.
class Workspace {
 public:
  explicit Workspace(int64_t bytes) : bytes_(new unsigned char[bytes]) {
    std::memset(bytes_.get(), 0xFF, bytes);
  }
  void* data() const { return bytes_.get(); }

 private:
  std::unique_ptr<unsigned char[]> bytes_;
};

}  // namespace vaal::testing
