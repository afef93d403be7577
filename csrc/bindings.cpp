// vaal_ext._C: facts about the build and the launch plans of the CUDA kernels. No tensor comes here.

#include <pybind11/pybind11.h>

#include <string>

#include "cuda/launch_plan.h"

namespace py = pybind11;

namespace {

py::object build_config() { return py::module_::import("json").attr("loads")(VAAL_BUILD_CONFIG); }

int bytes_of(const std::string& dtype) {
  if (dtype == "float32") return 4;
  if (dtype == "float64") return 8;
  if (dtype == "float16" || dtype == "bfloat16") return 2;
  throw py::value_error("dtype must be float32, float64, bfloat16 or float16, got " + dtype);
}

py::dict launch_plan(const std::string& op, int64_t rows, int64_t cols, const std::string& dtype,
                     bool smoothed, int multiprocessors, int shared_bytes) {
  const auto kind = vaal::op_from_name(op);
  if (!kind) throw py::value_error("there is no op " + op);
  vaal::DeviceLimits limits;
  if (multiprocessors > 0) limits.multiprocessors = multiprocessors;
  if (shared_bytes > 0) limits.shared_bytes = shared_bytes;
  const vaal::LaunchPlan plan = vaal::launch_plan(*kind, rows, cols, bytes_of(dtype), smoothed,
                                                  limits);
  py::dict result;
  result["path"] = vaal::path_name(plan.path);
  result["threads_per_row"] = plan.threads_per_row;
  result["rows_per_block"] = plan.rows_per_block;
  result["block_threads"] = plan.block_threads;
  result["items_per_thread"] = plan.items_per_thread;
  result["vector_width"] = plan.vector_width;
  result["blocks"] = plan.blocks;
  result["splits"] = plan.splits;
  result["cached_packs"] = plan.cached_packs;
  result["shared_bytes"] = plan.shared_bytes;
  return result;
}

}  // namespace

PYBIND11_MODULE(_C, m) {
  m.doc() = "Facts about this build of vaal_ext, and how its CUDA kernels would be launched.";
  m.def(
      "build_config", &build_config,
      "dict: torch, stable_abi, cxx, cpu_instruction_sets, nvcc, cuda_architectures, why_no_cuda.");
  m.def(
      "launch_plan", &launch_plan, py::arg("op"), py::arg("rows"), py::arg("cols"),
      py::arg("dtype"), py::arg("smoothed") = false, py::arg("multiprocessors") = 0,
      py::arg("shared_bytes") = 0,
      "dict: how the raw op `op` is launched for [rows, cols] of `dtype` on a device of so many "
      "multiprocessors and bytes of shared memory a block (0: an H100's); the fields are those of "
      "LaunchPlan in csrc/cuda/launch_plan.h. ValueError on an unknown op or dtype.");
}
