// What the tensor code of CUDA (*.cpp) shares: scratch memory, the device's limits, the current stream.
#pragma once

#include <cuda_runtime.h>
#include <torch/csrc/stable/accelerator.h>
#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/macros.h>

#include <vector>

#include "cuda/arguments.h"
#include "tensors.h"

namespace vaal {

using torch::stable::accelerator::DeviceGuard;

inline int dtype_size(const Tensor& x) { return static_cast<int>(x.element_size()); }

// Scratch memory of the split paths. The stream orders its reuse: it may be let go right after the
// launches.
class Workspace {
 public:
  Workspace(const Tensor& like, int64_t bytes) {
    if (bytes > 0) tensor_.push_back(new_tensor(like, {bytes}, ScalarType::Byte));
  }
  void* data() const { return tensor_.empty() ? nullptr : tensor_[0].mutable_data_ptr(); }

 private:
  std::vector<Tensor> tensor_;  // none or one: a default Tensor would cost an allocation
};

inline Stream current_stream(const Tensor& x) {
  void* stream = nullptr;
  STABLE_TORCH_ERROR_CODE_CHECK(aoti_torch_get_current_cuda_stream(x.get_device_index(), &stream));
  return static_cast<Stream>(stream);
}

// Asked once for all devices.
inline DeviceLimits device_limits(const Tensor& x) {
  static const std::vector<DeviceLimits> all = [] {
    int count = 0;
    STD_CUDA_CHECK(cudaGetDeviceCount(&count));
    std::vector<DeviceLimits> limits(count);
    for (int device = 0; device < count; ++device) {
      STD_CUDA_CHECK(cudaDeviceGetAttribute(&limits[device].multiprocessors,
                                            cudaDevAttrMultiProcessorCount, device));
      STD_CUDA_CHECK(cudaDeviceGetAttribute(&limits[device].shared_bytes,
                                            cudaDevAttrMaxSharedMemoryPerBlockOptin, device));
    }
    return limits;
  }();
  return all.at(static_cast<size_t>(x.get_device_index()));
}

// f(T{}) for the storage type of x.
template <class F>
void dispatch(const Tensor& x, F&& f) {
  switch (x.scalar_type()) {
    case ScalarType::Float: return f(float{});
    case ScalarType::Double: return f(double{});
    case ScalarType::Half: return f(Half{});
    case ScalarType::BFloat16: return f(BFloat16{});
    default: STD_TORCH_CHECK(false, "vaal: expected float32, float64, bfloat16 or float16");
  }
}

}  // namespace vaal
