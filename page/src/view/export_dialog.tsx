import { Dialog } from "./dialog.tsx";
export const ExportDialog = ({ onClose }: { onClose: () => void }) => <Dialog title="Export and import" onClose={onClose}><p>later</p></Dialog>;
