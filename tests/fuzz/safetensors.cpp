// A safetensors file of a stranger: its header, and where it says its tensors lie.
#include "common/model_file/safetensors.h"

#include "tests/fuzz/fuzz.h"

int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const auto file = quire::read_safetensors("model.safetensors", quire::fuzz::view(data, size));
  if (!file.ok()) return 0;
  std::uint64_t end = 8;
  for (const quire::StoredTensor& tensor : file->tensors) {
    QUIRE_CHECK_GE(tensor.offset, end);
    QUIRE_CHECK_LE(tensor.bytes, size - tensor.offset);
    end = tensor.offset + tensor.bytes;
  }
  return 0;
}
