// SPDX-License-Identifier: Apache-2.0
// Puts what esbuild doesn't bundle beside the bundle: the page, and the WebAssembly that the SDK loads by its URL.
import { cp, mkdir } from "node:fs/promises";

const wasm = "pkg/matrix_sdk_crypto_wasm_bg.wasm";
await mkdir("dist/pkg", { recursive: true });
await cp("page.html", "dist/page.html");
await cp(`node_modules/@matrix-org/matrix-sdk-crypto-wasm/${wasm}`, `dist/${wasm}`);
