//go:build supabase && !database

package supabase

const ownsDatabase = false

func databaseKinds() []kind { return nil }
