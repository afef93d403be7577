// Stands in for CUDA's runtime, and for what torch does for CUDA tensors, below the tensor code of
// csrc/cuda, which so runs on CPU tensors, kernels and all, in the process of Python.
//
// The linker's --wrap leads a call of torch's NAME to __wrap_NAME here, and __real_NAME to torch's.
// Neither torch nor csrc/cuda is changed for it. device_ops.py is the other end.
//
// There are two devices, with one stream each. What is an error here and undefined or slow on a GPU:
// memory or a stream of another device than the current one, a write past the end of the memory that
// an op asks for (a margin lies behind each piece, which is NaN until it is written), and all that
// fibres.h finds.
#include "cuda_runtime.h"

#include <torch/csrc/inductor/aoti_torch/c/shim.h>

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <stdexcept>
#include <utility>
#include <vector>

#include "cuda/device.cuh"

#define VAAL_FOR_PYTHON extern "C" __attribute__((visibility("default")))

namespace {

struct Device {
  int multiprocessors, shared_bytes;
  char stream;  // its address is the stream
};

// An H100, and a small one, on which long rows are streamed instead of split, most of them past the
// shared memory.
Device devices[] = {{132, 227 * 1024, 0}, {1, 16 * 1024, 0}};
constexpr int kDevices = 2;

struct Range {
  const unsigned char *begin, *end;
};
int home = 0;             // the device on which all memory lies …
std::vector<Range> away;  // … but this, which is on the other one
int current = 0;
bool refusing = false;  // the next launches
cudaError_t last_error = cudaSuccess;

struct LaunchRecord {
  int64_t device, blocks, threads, shared_bytes;
};
std::vector<LaunchRecord> launches;

// What the op that is running has asked for: kept until its guard goes, so that the margin behind it
// can be looked at after every launch.
struct Allocation {
  AtenTensorHandle whole;
  const unsigned char *margin, *end;
};
std::vector<Allocation> allocations;
constexpr int64_t kLeastMargin = 4096;      // bytes
constexpr unsigned char kUnwritten = 0xFF;  // a NaN in every floating type

void check(AOTITorchError status) {
  if (status != AOTI_TORCH_SUCCESS) throw std::runtime_error("torch refuses what runtime.cpp asks");
}

bool before_launch(int64_t blocks, int threads, int shared_bytes, const void* stream) {
  const Device& device = devices[current];
  if (stream != &device.stream)
    throw std::runtime_error("a launch on a stream that is not of the current device");
  if (refusing) last_error = cudaErrorLaunchFailure;
  if (blocks < 1 || blocks > 2147483647 || threads < 1 || threads > 1024 ||
      shared_bytes > device.shared_bytes)
    last_error = cudaErrorInvalidConfiguration;
  if (last_error != cudaSuccess) return false;
  launches.push_back({current, blocks, threads, shared_bytes});
  return true;
}

void after_launch() {
  const auto untouched = [](unsigned char x) { return x == kUnwritten; };
  for (const Allocation& x : allocations)
    if (!std::all_of(x.margin, x.end, untouched))
      throw std::runtime_error("a write past the end of the memory that the op asked for");
}

const bool watching = [] {
  vaal::emulation::before_launch = before_launch;
  vaal::emulation::after_launch = after_launch;
  return true;
}();

}  // namespace

// --- CUDA's runtime --------------------------------------------------------------------------------
cudaError_t cudaGetDeviceCount(int* count) {
  *count = kDevices;
  return cudaSuccess;
}
cudaError_t cudaDeviceGetAttribute(int* value, cudaDeviceAttr attribute, int device) {
  const Device& asked = devices[device];
  *value = attribute == cudaDevAttrMultiProcessorCount ? asked.multiprocessors : asked.shared_bytes;
  return cudaSuccess;
}
cudaError_t cudaGetLastError() { return std::exchange(last_error, cudaSuccess); }

// --- torch's part ----------------------------------------------------------------------------------
extern "C" {

AOTITorchError __real_aoti_torch_library_init_impl(const char*, const char*, const char*, uint32_t,
                                                   TorchLibraryHandle*);
AOTITorchError __real_aoti_torch_empty_strided(int64_t, const int64_t*, const int64_t*, int32_t,
                                               int32_t, int32_t, AtenTensorHandle*);

// A key that no tensor of the tests has: device_ops.py leads CPU tensors to it, and takes them back.
AOTITorchError __wrap_aoti_torch_library_init_impl(const char* library, const char*,
                                                   const char* file, uint32_t line,
                                                   TorchLibraryHandle* result) {
  return __real_aoti_torch_library_init_impl(library, "PrivateUse1", file, line, result);
}

AOTITorchError __wrap_aoti_torch_get_device_index(AtenTensorHandle tensor, int32_t* index) {
  void* data = nullptr;
  check(aoti_torch_get_data_ptr(tensor, &data));
  const auto holds = [&](const Range& range) { return data >= range.begin && data < range.end; };
  *index = std::any_of(away.begin(), away.end(), holds) ? 1 - home : home;
  return AOTI_TORCH_SUCCESS;
}

AOTITorchError __wrap_aoti_torch_get_current_cuda_stream(int32_t index, void** stream) {
  *stream = &devices[index].stream;
  return AOTI_TORCH_SUCCESS;
}

AOTITorchError __wrap_aoti_torch_create_device_guard(int32_t index, DeviceGuardHandle* guard) {
  *guard = reinterpret_cast<DeviceGuardHandle>(new int(std::exchange(current, index)));
  return AOTI_TORCH_SUCCESS;
}

AOTITorchError __wrap_aoti_torch_delete_device_guard(DeviceGuardHandle guard) {
  auto* const before = reinterpret_cast<int*>(guard);
  current = *before;
  delete before;
  for (const Allocation& x : allocations) check(aoti_torch_delete_tensor_object(x.whole));
  allocations.clear();
  return AOTI_TORCH_SUCCESS;
}

// Of a dense tensor; the tensor code makes no other.
AOTITorchError __wrap_aoti_torch_empty_strided(int64_t dims, const int64_t* sizes,
                                               const int64_t* strides, int32_t dtype,
                                               int32_t device_type, int32_t index,
                                               AtenTensorHandle* result) {
  if (index != current) throw std::runtime_error("memory on a device that is not the current one");
  int64_t elements = 1;
  for (int64_t d = 0; d < dims; ++d) elements *= sizes[d];
  const int64_t item = static_cast<int64_t>(aoti_torch_dtype_element_size(dtype));
  const int64_t whole_elements = 2 * elements + kLeastMargin / item, one = 1;
  AtenTensorHandle whole = nullptr;
  check(__real_aoti_torch_empty_strided(1, &whole_elements, &one, dtype, device_type, -1, &whole));
  void* data = nullptr;
  check(aoti_torch_get_data_ptr(whole, &data));
  std::memset(data, kUnwritten, static_cast<size_t>(whole_elements * item));
  const auto* const begin = static_cast<const unsigned char*>(data);
  allocations.push_back({whole, begin + elements * item, begin + whole_elements * item});
  return aoti_torch__reinterpret_tensor(whole, dims, sizes, strides, 0, result);
}

AOTITorchError __wrap_torch_c10_cuda_check_msg(int32_t error, const char*, const char*, uint32_t,
                                               bool, char** message) {
  if (error != cudaSuccess) *message = strdup("CUDA error: a launch that the device refused");
  return AOTI_TORCH_SUCCESS;
}
void __wrap_torch_c10_cuda_free_error_msg(char* message) { std::free(message); }

}  // extern "C"

// --- For Python ------------------------------------------------------------------------------------
VAAL_FOR_PYTHON void vaal_use_device(int device) { home = device; }
VAAL_FOR_PYTHON int vaal_current_device() { return current; }
VAAL_FOR_PYTHON void vaal_put_away(const unsigned char* begin, int64_t bytes) {
  away.push_back({begin, begin + bytes});
}
VAAL_FOR_PYTHON void vaal_bring_home() { away.clear(); }
VAAL_FOR_PYTHON void vaal_refuse_launches(bool refuse) { refusing = refuse; }
// Four numbers for each launch since this was last called, `most` of them; returns how many there were.
VAAL_FOR_PYTHON int64_t vaal_launches(LaunchRecord* records, int64_t most) {
  const int64_t count = static_cast<int64_t>(launches.size());
  std::copy_n(launches.begin(), std::min(count, most), records);
  launches.clear();
  return count;
}
