// Calls of kernels from Python, in a process of its own that can run under the sanitizers.
//
// A kernel registers itself by name; runner.cpp reads calls from standard input, gives each buffer
// an allocation that ends where the buffer ends, and answers on standard output. harness.py in this
// folder is the other end.
#pragma once

#include <cstdint>
#include <map>
#include <string>

namespace vaal::testing {

struct BufferSpec {
  int64_t bytes;      // -1: a null pointer
  int64_t misalign;   // bytes past a multiple of 16, below 16
  int64_t is_output;  // filled with 0xFF and sent back; an input comes with the call
};

constexpr int kMaxBuffers = 8;

struct Call {
  char name[32];  // of a registered function
  int64_t integer[24];
  double number[2];
  BufferSpec spec[kMaxBuffers];
};

// Throws std::exception on what the emulation finds; what a sanitizer finds ends the process.
using Function = void (*)(const Call& call, void* const* buffer);

inline std::map<std::string, Function>& functions() {
  static std::map<std::string, Function> all;
  return all;
}

struct Registration {
  Registration(const std::string& name, Function function) { functions()[name] = function; }
};

}  // namespace vaal::testing
