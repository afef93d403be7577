// The loop of the process that runs kernels for Python: see runner.h.
#include "runner.h"

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <exception>
#include <stdexcept>
#include <vector>

namespace vaal::testing {
namespace {

bool receive(void* data, size_t bytes) { return std::fread(data, 1, bytes, stdin) == bytes; }
void send(const void* data, size_t bytes) { std::fwrite(data, 1, bytes, stdout); }

// Nothing lies between the buffer's end and the red zone behind the allocation, so that reading or
// writing one byte too many is an error; in front of it there is a red zone too where the buffer
// is aligned, and `misalign` bytes that must not be written elsewhere.
class Buffer {
 public:
  explicit Buffer(const BufferSpec& spec) : spec_(spec) {
    if (spec.bytes < 0) return;
    const size_t size = static_cast<size_t>(spec.misalign + spec.bytes);
    base_ = static_cast<unsigned char*>(std::malloc(size));
    if (base_ == nullptr) throw std::runtime_error("no memory for a buffer");
    std::memset(base_, 0xFF, size);
  }
  Buffer(const Buffer&) = delete;
  Buffer(Buffer&& other) noexcept : spec_(other.spec_), base_(other.base_) {
    other.base_ = nullptr;
  }
  ~Buffer() { std::free(base_); }

  bool is_output() const { return base_ != nullptr && spec_.is_output; }
  bool is_input() const { return base_ != nullptr && !spec_.is_output; }
  size_t bytes() const { return static_cast<size_t>(spec_.bytes); }
  unsigned char* data() const { return base_ == nullptr ? nullptr : base_ + spec_.misalign; }

  void check_front() const {
    for (int64_t i = 0; base_ != nullptr && i < spec_.misalign; ++i)
      if (base_[i] != 0xFF) throw std::runtime_error("a write in front of a buffer");
  }

 private:
  BufferSpec spec_;
  unsigned char* base_ = nullptr;
};

void answer(const Call& call) {
  std::vector<Buffer> buffers;
  buffers.reserve(kMaxBuffers);
  void* pointers[kMaxBuffers];
  for (int i = 0; i < kMaxBuffers; ++i) {
    buffers.emplace_back(call.spec[i]);
    pointers[i] = buffers[i].data();
    if (buffers[i].is_input() && !receive(pointers[i], buffers[i].bytes())) std::exit(2);
  }
  std::string error;
  try {
    const auto found = functions().find(call.name);
    if (found == functions().end())
      throw std::runtime_error(std::string("there is no kernel ") + call.name);
    found->second(call, pointers);
    for (const Buffer& buffer : buffers) buffer.check_front();
  } catch (const std::exception& caught) {
    error = caught.what();
  }
  const int64_t length = static_cast<int64_t>(error.size());
  send(&length, sizeof(length));
  send(error.data(), error.size());
  if (error.empty())
    for (const Buffer& buffer : buffers)
      if (buffer.is_output()) send(buffer.data(), buffer.bytes());
  std::fflush(stdout);
}

}  // namespace
}  // namespace vaal::testing

int main() {
  vaal::testing::Call call;
  while (vaal::testing::receive(&call, sizeof(call))) vaal::testing::answer(call);
  return 0;
}
