// Launches written down instead of run, for cuda/launches.py: which kernel, in what shape, and the
// bytes of its parameters as the GPU would be given them.
//
// Where VAAL_LAUNCHES names a file, launch() appends a line to it for each launch and runs nothing.
#pragma once

#include <dlfcn.h>

#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>

namespace vaal::emulation {

// Parameters lie one behind the other, each at a multiple of its alignment.
template <class Parameter>
void append_parameter(std::string& bytes, const Parameter& parameter) {
  bytes.resize((bytes.size() + alignof(Parameter) - 1) / alignof(Parameter) * alignof(Parameter));
  bytes.append(reinterpret_cast<const char*>(&parameter), sizeof(Parameter));
}

// Whether the launch is written down. The name needs a program that is linked with -rdynamic.
template <class... Parameters>
bool written_down(void (*kernel)(Parameters...), int64_t blocks, int threads, int shared_bytes,
                  const Parameters&... parameters) {
  const char* const path = std::getenv("VAAL_LAUNCHES");
  if (path == nullptr) return false;
  std::string bytes;
  (append_parameter(bytes, parameters), ...);
  Dl_info found{};
  dladdr(reinterpret_cast<void*>(kernel), &found);
  std::FILE* const file = std::fopen(path, "a");
  if (file == nullptr) std::abort();
  std::fprintf(file, "%s %lld %d %d ", found.dli_sname == nullptr ? "?" : found.dli_sname,
               static_cast<long long>(blocks), threads, shared_bytes);
  for (const unsigned char byte : bytes) std::fprintf(file, "%02x", byte);
  std::fprintf(file, "\n");
  std::fclose(file);
  return true;
}

}  // namespace vaal::emulation
