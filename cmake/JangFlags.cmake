# Warnings, sanitizers, and the flags of each instruction set.

include(CheckCCompilerFlag)

function(jang_flags target)
  target_compile_options(${target} PRIVATE -Wall -Wextra -Wshadow -Wconversion -Wstrict-prototypes
                         -Wmissing-prototypes -Wvla -fno-math-errno -ffp-contract=off)
  target_compile_definitions(${target} PRIVATE _DEFAULT_SOURCE _GNU_SOURCE)
  if(JANG_WERROR)
    target_compile_options(${target} PRIVATE -Werror)
  endif()
  if(JANG_SANITIZE)
    target_compile_options(${target} PRIVATE -fsanitize=${JANG_SANITIZE} -fno-sanitize-recover=all
                           -fno-omit-frame-pointer)
    target_link_options(${target} PRIVATE -fsanitize=${JANG_SANITIZE})
  endif()
endfunction()

# Kernel files end in _<isa>.c and are compiled with that instruction set; those of other
# processors are taken off the list.
function(jang_select_kernels list_name)
  set(sources ${${list_name}})
  if(CMAKE_SYSTEM_PROCESSOR MATCHES "x86_64|amd64|AMD64")
    set(here "avx2|avx512")
    check_c_compiler_flag(-mavxvnni JANG_HAVE_AVX_VNNI) # gcc 11, clang 12
    if(JANG_HAVE_AVX_VNNI)
      set(here "${here}|avx_vnni")
      set_property(SOURCE src/ops/cpu/kernel_table.c APPEND PROPERTY COMPILE_DEFINITIONS
                   JANG_HAVE_AVX_VNNI)
    endif()
  elseif(CMAKE_SYSTEM_PROCESSOR MATCHES "aarch64|arm64")
    set(here "neon|neon_dot|neon_i8mm")
  else()
    set(here "none")
  endif()
  set(flags_avx2 -mavx2 -mfma -mf16c -mbmi2)
  set(flags_avx_vnni ${flags_avx2} -mavxvnni)
  set(flags_avx512 ${flags_avx2} -mavx512f -mavx512bw -mavx512dq -mavx512vl -mavx512vbmi
      -mavx512vnni -mprefer-vector-width=512)
  set(flags_neon "")
  set(flags_neon_dot -march=armv8.2-a+fp16+dotprod)
  set(flags_neon_i8mm -march=armv8.6-a+fp16+dotprod+i8mm)
  if(JANG_FUZZ) # no parser is among them, and instrumenting their unrolled bodies takes minutes
    foreach(isa avx2 avx_vnni avx512 neon neon_dot neon_i8mm)
      list(APPEND flags_${isa} -fno-sanitize=all)
    endforeach()
    set_source_files_properties(src/ops/cpu/floats_scalar.c src/quant/mse.c src/quant/lattice.c
                                PROPERTIES COMPILE_OPTIONS -fno-sanitize=all)
  endif()
  set(kept)
  foreach(source ${sources})
    if(source MATCHES "_(avx2|avx_vnni|avx512|neon|neon_dot|neon_i8mm)\\.c$")
      set(isa ${CMAKE_MATCH_1})
      if(isa MATCHES "^(${here})$")
        set_source_files_properties(${source} PROPERTIES COMPILE_OPTIONS "${flags_${isa}}")
        list(APPEND kept ${source})
      endif()
    else()
      list(APPEND kept ${source})
    endif()
  endforeach()
  # gptq's products come from a BLAS, so its bits differ between instruction sets anyway.
  set_property(SOURCE src/quant/lattice.c src/quant/lattice_avx2.c src/quant/lattice_avx512.c APPEND
               PROPERTY COMPILE_OPTIONS -ffp-contract=fast)
  set(${list_name} ${kept} PARENT_SCOPE)
endfunction()

# Links a library's objects into one and makes its hidden names local to it. Where the linker
# cannot (macOS), the objects as they are.
function(jang_public_object out objects)
  if(APPLE OR NOT CMAKE_OBJCOPY)
    set(${out} $<TARGET_OBJECTS:${objects}> PARENT_SCOPE)
    return()
  endif()
  set(object ${CMAKE_CURRENT_BINARY_DIR}/jang-public.o)
  add_custom_command(
    OUTPUT ${object}
    COMMAND ${CMAKE_C_COMPILER} -r -nostdlib -o ${object} $<TARGET_OBJECTS:${objects}>
    COMMAND ${CMAKE_OBJCOPY} --localize-hidden ${object}
    DEPENDS ${objects} $<TARGET_OBJECTS:${objects}>
    COMMAND_EXPAND_LISTS VERBATIM COMMENT "Making inner names local")
  set_source_files_properties(${object} PROPERTIES EXTERNAL_OBJECT TRUE GENERATED TRUE)
  set(${out} ${object} PARENT_SCOPE)
endfunction()
