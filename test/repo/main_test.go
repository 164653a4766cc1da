package repo

import (
	"os"
	"testing"

	"github.com/resetd/resetd/test/resetdtest"
)

func TestMain(m *testing.M) { os.Exit(resetdtest.Main(m)) }
