import type { NextConfig } from 'next'

const config: NextConfig = {
	turbopack: { root: import.meta.dirname }, // this folder, whatever lock files lie above it
}

export default config
