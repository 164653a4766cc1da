//go:build e2e && !database

package e2e

const ownsDatabase = false

func databaseKinds() []kind { return nil }
