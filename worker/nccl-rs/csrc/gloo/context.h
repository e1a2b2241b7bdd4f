// libtorch ships c10d's Gloo header, but not Gloo's own, which that header includes. It uses three
// classes, and of them only what is declared in this folder. Nothing here is ever defined or
// called by the shim: the objects live and die inside libtorch.
#pragma once
#include <chrono>

namespace gloo {
class Context {
 public:
  void setTimeout(std::chrono::milliseconds timeout);
};
}  // namespace gloo
