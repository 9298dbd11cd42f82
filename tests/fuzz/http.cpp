// Bytes on a connection of the HTTP server. The first byte chooses how they are cut into packets.
#include "tests/fuzz/fuzz.h"
#include "tests/fuzz/http_connection.h"

int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  if (size == 0) return 0;
  constexpr std::size_t kParts[] = {1 << 20, 1000, 64, 7};
  quire::fuzz::talk(quire::fuzz::view(data + 1, size - 1), kParts[data[0] % 4]);
  return 0;
}
