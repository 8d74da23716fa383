package migrate

// SetFault makes every step of a cutover ask first.
func (o *CutoverOptions) SetFault(f func(string) error) { o.fault = f }

// SetFault makes every step of a rollback ask first.
func (o *RollbackOptions) SetFault(f func(string) error) { o.fault = f }

// PatchPython is exported for tests.
var PatchPython = patchPython
